/** State of one room for this user, for the whole session: messages, typing users, read marks, draft. */

import { Changing } from './changes.js';
import { uid } from './ids.js';
import { PAGE, Timeline, messageOf } from './timeline.js';

const TYPING_SHOWN_MS = 8000; // the server ends it after 6 s; this covers a lost event
const TYPING_RENEWED_MS = 2500; // the server forwards at most one start per 2 s
const MEMBERS = 100;
const CATCH_UP_PAGE = 100;
const CATCH_UP_MAX = 300; // for larger gaps the newest page is loaded instead

export class Conversation extends Changing {
  timeline = new Timeline();
  typing = new Map(); // userId -> timer
  readers = new Map(); // userId -> seq
  members = []; // as REST returns them, at most 100
  memberTotal = 0;
  draft = '';
  #typingSentMs = 0;
  #older = null;
  #catchingUp = null;

  constructor(id, { api, connection, people, rooms, me }) {
    super();
    Object.assign(this, { id, api, connection, people, rooms, me });
    this.timeline.onChange(() => this.changed());
  }

  get room() {
    return this.rooms.get(this.id);
  }

  /** Return the user's role in the room: that in the member list, once it is loaded and if they are on its page. */
  get role() {
    const mine = this.members.find(({ userId }) => userId === this.me);
    if (mine) return mine.role;
    return this.room?.createdBy === this.me ? 'creator' : 'member';
  }

  // History ----------------------------------------------------------------------------------------------------------

  /** Load the newest page. */
  async load() {
    const room = this.room;
    this.timeline.dividerSeq = this.rooms.unread(room) > 0 ? room.readSeq : null;
    await Promise.all([this.timeline.isLoaded ? this.catchUp() : this.#loadNewest(), this.loadMembers()]);
  }

  async #loadNewest() {
    this.#addPage(await this.api.messages(this.id, { limit: PAGE }));
  }

  #addPage(page) {
    const messages = page.map(messageOf);
    for (const { userId, user } of messages) this.people.learn(userId, user);
    this.timeline.addPage(messages);
  }

  /** Load the page before the oldest loaded message; one request at a time. */
  loadOlder() {
    this.#older ??= this.#loadOlder().finally(() => {
      this.#older = null;
    });
    return this.#older;
  }

  async #loadOlder() {
    if (!this.timeline.hasOlder) return;
    this.#addPage(await this.api.messages(this.id, { limit: PAGE, before: this.timeline.firstSeq }));
  }

  /** Load the messages after the newest contiguous one. */
  catchUp() {
    this.#catchingUp ??= this.#catchUp().finally(() => {
      this.#catchingUp = null;
    });
    return this.#catchingUp;
  }

  async #catchUp() {
    const newest = await this.api.messages(this.id, { limit: PAGE });
    const missing = (newest[0]?.seq ?? 0) - this.timeline.wholeThroughSeq;
    if (missing > CATCH_UP_MAX) this.timeline.restart();
    let upTo = newest.at(-1)?.seq;
    this.#addPage(newest);
    while (this.timeline.length && upTo > this.timeline.wholeThroughSeq + 1) {
      const page = await this.api.messages(this.id, { limit: CATCH_UP_PAGE, before: upTo });
      if (page.length === 0) break;
      this.#addPage(page);
      upTo = page.at(-1).seq;
    }
  }

  async loadMembers() {
    const { data, pagination } = await this.api.members(this.id, { limit: MEMBERS });
    this.members = data;
    this.memberTotal = pagination.total;
    if (data.length === pagination.total) {
      const activeNow = data.filter(({ status }) => status === 'online').length;
      this.rooms.change(this.id, { memberCount: data.length, activeNow });
    }
    for (const { userId, user, status } of data) {
      this.people.learn(userId, user);
      this.people.seen({ userId, status });
    }
    this.changed();
  }

  // Live -------------------------------------------------------------------------------------------------------------

  /** Process a live message. */
  take(data) {
    const message = messageOf(data);
    this.#stopTyping(message.userId);
    if (!this.timeline.isLoaded && this.rooms.openId !== this.id) return; // the history will include it
    if (this.timeline.add(message)) this.catchUp().catch(() => {});
    if (this.rooms.openId !== this.id) this.timeline.trim();
  }

  takeTyping({ userId, isTyping }) {
    this.#stopTyping(userId);
    if (isTyping && userId !== this.me)
      this.typing.set(
        userId,
        setTimeout(() => this.#stopTyping(userId), TYPING_SHOWN_MS),
      );
    this.changed();
  }

  #stopTyping(userId) {
    if (!this.typing.has(userId)) return;
    clearTimeout(this.typing.get(userId));
    this.typing.delete(userId);
    this.changed();
  }

  takeRead({ userId, seq }) {
    if (userId === this.me || seq <= (this.readers.get(userId) ?? 0)) return;
    this.readers.set(userId, seq);
    this.changed();
  }

  // Own messages -----------------------------------------------------------------------------------------------------

  /** Send a text. It appears at once, and remains marked as failed if sending fails. */
  async send(text, clientMessageId = uid()) {
    this.timeline.sending(clientMessageId, text);
    this.#typingSentMs = 0;
    try {
      await this.connection.send(this.id, text, clientMessageId);
      this.timeline.sent(clientMessageId);
      this.rooms.change(this.id, { isMember: true }); // posting in a public room joins it
    } catch (error) {
      this.timeline.failed(clientMessageId, error.message);
    }
  }

  /** Resend a failed message under the same id, which prevents a duplicate. */
  retry(clientMessageId) {
    return this.send(this.timeline.pendingText(clientMessageId), clientMessageId);
  }

  /** Announce that the user types, at most every 2.5 s. */
  type() {
    const nowMs = Date.now();
    if (nowMs - this.#typingSentMs < TYPING_RENEWED_MS) return;
    this.#typingSentMs = nowMs;
    this.connection.type(this.id, true);
  }

  /** Announce that the user stopped typing without sending. */
  stopTyping() {
    if (this.#typingSentMs === 0) return;
    this.#typingSentMs = 0;
    this.connection.type(this.id, false);
  }

  /** Mark all loaded messages as read. */
  markRead() {
    const { lastSeq } = this.timeline;
    if (this.room?.isMember && this.timeline.isLoaded && this.rooms.read(this.id, lastSeq))
      this.connection.read(this.id, lastSeq);
  }
}
