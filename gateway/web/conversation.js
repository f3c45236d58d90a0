/** State of one room for this user, for the whole session: messages, typing users, read marks, draft. */

import { Observable } from './changes.js';
import { Draft } from './draft.js';
import { uid } from './ids.js';
import { messageOf } from './message_model.js';
import { Pins } from './pins.js';
import { PAGE, Timeline } from './timeline.js';

const TYPING_SHOWN_MS = 8000; // the server ends it after 6 s; this covers a lost event
const TYPING_RENEWED_MS = 2500; // the server forwards at most one start per 2 s
const MEMBERS = 100;
const CATCH_UP_PAGE = 100;
const CATCH_UP_MAX = 300; // for larger gaps the newest page is loaded instead

export class Conversation extends Observable {
  typing = new Map(); // userId -> timer
  readers = new Map(); // userId -> seq
  members = []; // as REST returns them, at most 100
  memberTotal = 0;
  gaps = 0; // how often changes were missed
  isLive = false; // whether the room is subscribed to, or will be once its messages are loaded
  draft = new Draft();
  #typingSentMs = 0;
  #older = null;
  #newer = null;
  #catchingUp = null;

  constructor(id, { api, connection, people, rooms, me }) {
    super();
    Object.assign(this, { id, api, connection, people, rooms, me });
    this.timeline = new Timeline(me);
    this.pins = new Pins(api, id, this.timeline);
    for (const part of [this.timeline, this.pins]) part.onChange(() => this.changed());
  }

  get room() {
    return this.rooms.get(this.id);
  }

  /**
   * Return the user's role from the loaded page of the member list; until it shows the user, guess the role from
   * `createdBy`.
   */
  get role() {
    const mine = this.members.find(({ userId }) => userId === this.me);
    if (mine) return mine.role;
    return this.room?.createdBy === this.me ? 'creator' : 'member';
  }

  get isDirect() {
    return Boolean(this.room?.directUserIds);
  }

  /** Return the role of a user, if the member list shows it. */
  roleOf(userId) {
    return this.members.find((member) => member.userId === userId)?.role ?? 'member';
  }

  // History ----------------------------------------------------------------------------------------------------------

  /** Load the newest page, and keep it up to date until `release`. */
  async load() {
    const room = this.room;
    this.isLive = true;
    this.timeline.dividerSeq = this.rooms.unread(room) > 0 ? room.readSeq : null;
    const messages = this.#loadLive();
    this.pins.load().catch(() => {}); // the next change retries
    await Promise.all([messages, this.loadMembers()]);
  }

  /** Load messages, then subscribe from there: the changes between the two are replayed. */
  async #loadLive() {
    const isFirst = !this.timeline.isLoaded;
    await (isFirst ? this.#loadNewest() : this.catchUp());
    if (!this.isLive) {
      this.release();
      return;
    }
    this.connection.follow(this.id, this.timeline.wholeThroughRev);
    if (isFirst) await this.#rereadQuoted();
  }

  /** Unsubscribe, and drop the messages: their changes will be missed. The draft and unsent messages stay. */
  release() {
    this.isLive = false;
    this.connection.unfollow(this.id);
    for (const userId of [...this.typing.keys()]) this.#stopTyping(userId);
    this.timeline.restart();
    this.pins.clear();
  }

  /**
   * Load again the messages that the draft and unsent messages quote: they may have changed while the room was not
   * subscribed.
   */
  async #rereadQuoted() {
    for (const messageId of new Set([...this.draft.messageIds(), ...this.timeline.quotedIds()])) {
      try {
        const now = messageOf(await this.api.message(this.id, messageId));
        this.draft.refresh(now);
        this.timeline.requote(now);
      } catch {
        // it stays as it is; the next change retries
      }
    }
    this.changed();
  }

  /** Request a page. Return its messages, and the rev of the last live entry that had arrived before the request. */
  async #page(parameters) {
    const asOfRev = this.timeline.rev;
    const messages = (await this.api.messages(this.id, parameters)).map(messageOf);
    for (const { userId, user } of messages) this.people.learn(userId, user);
    return { messages, asOfRev };
  }

  async #loadNewest() {
    this.#addPage(await this.#page({ limit: PAGE }));
  }

  #addPage({ messages, asOfRev }) {
    this.timeline.addPage(messages, asOfRev);
  }

  /** Load the messages around one, unless it is loaded. */
  async showAround(seq) {
    if (this.timeline.at(seq)) return;
    const { messages, asOfRev } = await this.#page({ limit: PAGE, around: seq });
    this.timeline.show(messages, asOfRev, this.room?.lastSeq ?? 0);
  }

  /** Return to the newest messages after `showAround`. */
  async showNewest() {
    if (!this.timeline.isDetached) return;
    const page = await this.#page({ limit: PAGE });
    this.timeline.restart();
    this.#addPage(page);
  }

  /** Load the page after the newest loaded message of a detached timeline; one request at a time. */
  loadNewer() {
    this.#newer ??= this.#loadNewer().finally(() => {
      this.#newer = null;
    });
    return this.#newer;
  }

  async #loadNewer() {
    if (!this.timeline.isDetached) return;
    this.#addPage(await this.#page({ limit: PAGE, after: this.timeline.lastSeq }));
    if (this.timeline.lastSeq >= (this.room?.lastSeq ?? 0)) this.timeline.attach();
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
    this.#addPage(await this.#page({ limit: PAGE, before: this.timeline.firstSeq }));
  }

  /** Load the messages after the newest contiguous one. */
  catchUp() {
    this.#catchingUp ??= this.#catchUp().finally(() => {
      this.#catchingUp = null;
    });
    return this.#catchingUp;
  }

  async #catchUp() {
    const newest = await this.#page({ limit: PAGE });
    const missing = (newest.messages[0]?.seq ?? 0) - this.timeline.wholeThroughSeq;
    if (missing > CATCH_UP_MAX || this.timeline.isDetached) this.timeline.restart();
    let upTo = newest.messages.at(-1)?.seq;
    this.#addPage(newest);
    while (this.timeline.length && upTo > this.timeline.wholeThroughSeq + 1) {
      const page = await this.#page({ limit: CATCH_UP_PAGE, before: upTo });
      if (page.messages.length === 0) break;
      this.#addPage(page);
      upTo = page.messages.at(-1).seq;
    }
    return upTo ?? 0;
  }

  /** Load the messages of a gap in the live stream. Older messages are dropped, since their changes were missed too. */
  async recover() {
    this.gaps += 1;
    if (!this.timeline.isLoaded) return;
    this.timeline.dropBefore(await this.catchUp());
    await Promise.all([this.pins.load(), this.#rereadQuoted()]);
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
    if (message.reactions.length) this.#reread(message.id); // a replayed one: frames do not name the users
    if (this.rooms.openId !== this.id) this.timeline.trim();
  }

  /** Process a change of a message: `{type, data}`, a frame of the room's log. */
  takeChange(change) {
    this.timeline.change(change);
    this.pins.take(change);
    this.draft.take(change);
    this.changed();
    if (change.type === 'chat:reaction' && !change.data.changes) this.#reread(change.data.messageId);
  }

  /** Load a message again if it is shown. */
  async #reread(messageId) {
    if (!this.timeline.get(messageId)) return;
    const asOfRev = this.timeline.rev;
    try {
      this.timeline.replace(messageOf(await this.api.message(this.id, messageId)), asOfRev);
    } catch {
      // it stays as it is; the next change retries
    }
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

  /**
   * Send a message. It appears at once, and remains marked as failed if sending fails. `extras`: its other fields, by
   * their names in the frame; `quote` is the message that it answers.
   */
  async send(text, { quote = null, ...extras } = {}, clientMessageId = uid()) {
    this.timeline.sending(clientMessageId, text, { ...extras, quote });
    this.#typingSentMs = 0;
    try {
      await this.connection.send(this.id, text, clientMessageId, extras);
      this.timeline.sent(clientMessageId);
      this.#joined();
    } catch (error) {
      this.timeline.failed(clientMessageId, error.message);
    }
  }

  /** Resend a failed message under the same id, which prevents a duplicate. */
  retry(clientMessageId) {
    const { text, extras } = this.timeline.pendingOf(clientMessageId);
    return this.send(text, extras, clientMessageId);
  }

  /** Posting and reacting in a public room join it. */
  #joined() {
    if (!this.room?.isMember) this.rooms.change(this.id, { isMember: true });
  }

  // Changes of messages: they throw the server's error; the change is shown when its event arrives --------------------

  async edit(messageId, text, mentions) {
    await this.connection.edit(this.id, messageId, text, mentions);
  }

  async remove(messageId) {
    await this.connection.remove(this.id, messageId);
  }

  /** Add one's reaction, or remove it if it is there. */
  async toggleReaction(message, emoji) {
    const isMine = message.reactions.some((one) => one.emoji === emoji && one.mine);
    await this.connection.react(this.id, message.id, emoji, isMine);
    this.#joined();
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
    const { lastSeq, isDetached } = this.timeline;
    if (isDetached) return;
    if (this.room?.isMember && this.timeline.isLoaded && this.rooms.read(this.id, lastSeq))
      this.connection.read(this.id, lastSeq);
  }
}
