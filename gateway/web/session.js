/** Session of one user: all state, and its changes by live events. Views listen; nothing here renders. */

import { Alerts } from './alerts.js';
import { Api } from './api.js';
import { Observable, soon } from './changes.js';
import { Conversation } from './conversation.js';
import { uid } from './ids.js';
import { Inbox } from './inbox.js';
import { Market } from './market.js';
import { MentionWatch } from './mention_watch.js';
import { listenToNews } from './news.js';
import { Partners } from './partners.js';
import { People } from './people.js';
import { Rooms } from './rooms.js';

const REFRESH_EVERY_MS = 30_000; // no event announces changes of rooms that the user is not subscribed to
const PRICES_PER_S = 2; // more would be unreadable
const RECENT_ROOMS = 8; // subscribed to, the open one included: the server permits 200 subscriptions
const REJOINED_MS = 300; // a replay that shows a departure shows the return right after it
const CHANGES = ['chat:updated', 'chat:deleted', 'chat:reaction', 'chat:pinned'];

export class Session extends Observable {
  #conversations = new Map();
  #recent = []; // ids of the rooms that are subscribed to, the one opened last first
  #refreshing = null;
  #leaving = new Set(); // rooms that the user is leaving; their loss needs no note
  #departed = new Set(); // private rooms that the user has just left, perhaps to return
  /** Recipient of a first direct message, while no room exists yet. */
  draftTo = null;

  /**
   * `me`: `{userId, firstName, lastName}`. `notify(text, kind)` shows a note and returns a function that removes it.
   */
  constructor(me, token, connection, notify) {
    super();
    this.me = me;
    this.connection = connection;
    this.notify = notify;
    this.api = new Api(token);
    this.people = new People(this.api);
    this.people.learn(me.userId, me);
    this.people.seen({ userId: me.userId, status: 'online' });
    this.rooms = new Rooms(this.api, me.userId);
    this.market = new Market(this.api);
    this.inbox = new Inbox(this.api);
    this.alerts = new Alerts(this.api);
    this.partners = new Partners(this);
    this.mentions = new MentionWatch(this, (id) => this.#conversations.get(id)?.isLive ?? false);
    this.#listen();
  }

  /** Load all state and connect. Failures are shown, and retried after a reconnect. */
  async start() {
    this.connection.open();
    this.connection.subscribe('notifications');
    this.connection.subscribe('activity');
    await this.#load();
    this.#refreshing = setInterval(() => this.#refresh(), REFRESH_EVERY_MS);
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.#refresh());
  }

  stop() {
    clearInterval(this.#refreshing);
    this.connection.close();
  }

  async #load() {
    const parts = [this.rooms.refresh(), this.market.load().then(() => this.#quote())];
    parts.push(this.inbox.load(), this.alerts.load());
    const failed = (await Promise.allSettled(parts)).find(({ status }) => status === 'rejected');
    if (failed) this.notify(failed.reason.message, 'error');
  }

  /** Load what no event announces: online counts of rooms, and who of the direct rooms is online. */
  #refresh() {
    this.rooms.refreshSoon();
    this.partners.refresh().catch(() => {});
  }

  #quote() {
    if (this.market.symbols.length)
      this.connection.subscribe('market', { symbols: this.market.symbols, maxRate: PRICES_PER_S });
  }

  // Rooms ------------------------------------------------------------------------------------------------------------

  get conversation() {
    return this.#conversations.get(this.rooms.openId) ?? null;
  }

  #conversationOf(id) {
    if (!this.#conversations.has(id)) {
      const { api, connection, people, rooms } = this;
      const parts = { api, connection, people, rooms, me: this.me.userId };
      this.#conversations.set(id, new Conversation(id, parts));
    }
    return this.#conversations.get(id);
  }

  /**
   * Open a room and subscribe to it. The room stays subscribed while it is among the last 8 opened; a public room that
   * the user has not joined stays subscribed only while it is open.
   */
  async open(id) {
    this.#leaveOpen();
    this.draftTo = null;
    this.#recent = [id, ...this.#recent.filter((other) => other !== id)];
    for (const other of this.#recent.slice(RECENT_ROOMS)) this.#release(other);
    const conversation = this.#conversationOf(id);
    this.rooms.select(id);
    this.changed();
    try {
      if (!this.rooms.has(id)) this.rooms.take(await this.api.room(id));
      await conversation.load();
    } catch (error) {
      this.notify(error.message, 'error');
      if (error.status === 404) this.#drop(id);
    }
    this.changed();
  }

  #leaveOpen() {
    const open = this.rooms.open;
    if (!open) return;
    this.conversation.stopTyping();
    if (open.isMember) this.conversation.timeline.trim();
    else this.#release(open.id);
  }

  /** End the subscription of a room. */
  #release(id) {
    this.#recent = this.#recent.filter((other) => other !== id);
    this.#conversations.get(id)?.release();
  }

  /** Close the open room. */
  closeRoom() {
    this.#leaveOpen();
    this.draftTo = null;
    this.rooms.select(null);
    this.changed();
  }

  /** Open the direct room with a user. If none exists, the first message creates it. */
  async writeTo(userId) {
    const room = this.rooms.directWith(userId);
    if (room) {
      await this.open(room.id);
      return;
    }
    this.closeRoom();
    this.draftTo = userId;
    this.changed();
    await this.people.ask([userId]);
  }

  /** Send the first message of a direct room. Throws the server's error. */
  async sendFirst(text, extras) {
    const sent = await this.connection.sendDirect(this.draftTo, text, uid(), extras);
    this.rooms.take(await this.api.room(sent.chatroomId));
    await this.open(sent.chatroomId);
  }

  async createRoom(fields) {
    const room = this.rooms.take(await this.api.createRoom(fields));
    this.open(room.id); // shows failures itself
  }

  async join(id) {
    this.rooms.take(await this.api.join(id));
    await this.#conversationOf(id).loadMembers();
  }

  async leave(id) {
    this.#leaving.add(id);
    const room = await this.api.leave(id).finally(() => this.#leaving.delete(id));
    this.#release(id);
    if (room.type === 'public') this.rooms.change(id, { isMember: false, memberCount: room.memberCount });
    else this.#drop(id);
    if (this.rooms.openId === id) this.closeRoom();
  }

  async deleteRoom(id) {
    await this.api.deleteRoom(id);
    this.#drop(id);
    this.rooms.deleted(id);
  }

  #drop(id) {
    this.#release(id);
    this.#conversations.delete(id);
    this.rooms.drop(id);
    this.changed();
  }

  // Events -----------------------------------------------------------------------------------------------------------

  #listen() {
    const { connection, people, rooms } = this;
    const membersSoon = soon(() => this.conversation?.loadMembers().catch(() => {}), 500);
    const inRoom = (data, act) =>
      this.#conversations.has(data.chatroomId) && act(this.#conversations.get(data.chatroomId));
    connection.on('chat:message', (data) => this.#message(data));
    for (const type of CHANGES)
      connection.on(type, (data) => {
        this.inbox.change({ type, data });
        inRoom(data, (conversation) => conversation.takeChange({ type, data }));
      });
    connection.on('chat:typing', (data) => inRoom(data, (conversation) => conversation.takeTyping(data)));
    connection.on('chat:read', (data) => {
      if (data.userId === this.me.userId) rooms.read(data.chatroomId, data.seq);
      inRoom(data, (conversation) => conversation.takeRead(data));
    });
    for (const type of ['user:online', 'user:offline']) {
      connection.on(type, (data) => {
        people.seen(data);
        rooms.refreshSoon();
      });
    }
    connection.on('subscribed', (data) => {
      if (data.channel === 'activity') rooms.takeSubscribed(data).catch(() => {}); // the next connection retries
    });
    connection.on('room:activity', (data) => rooms.active(data.rooms));
    connection.on('room:unread', (data) => rooms.counted(data) && this.mentions.check(data.chatroomId));
    connection.on('room:presence', ({ chatroomId, activeNow }) => rooms.change(chatroomId, { activeNow }));
    for (const type of ['member:joined', 'member:left']) {
      connection.on(type, ({ chatroomId, userId, user, memberCount }) => {
        people.learn(userId, user);
        rooms.change(chatroomId, { memberCount });
        rooms.refreshSoon();
        if (chatroomId === rooms.openId) membersSoon();
        if (userId !== this.me.userId) return;
        if (type === 'member:left') this.#removed(chatroomId);
        else this.#rejoined(chatroomId);
      });
    }
    connection.on('member:invited', ({ name, by }) => {
      if (by !== this.me.userId) this.notify(`${people.name(by)} invited you to “${name}”.`);
      rooms.refresh().catch(() => {});
    });
    connection.on('unsubscribed', ({ chatroomId, reason }) => reason === 'removed' && this.#ended(chatroomId));
    connection.on('chatroom:updated', ({ chatroomId, name, description, type }) =>
      rooms.change(chatroomId, { name, description, type }),
    );
    connection.on('chatroom:deleted', ({ chatroomId }) => {
      this.#gone(chatroomId, 'was deleted');
      rooms.deleted(chatroomId);
    });
    listenToNews(this);
    connection.on('auth:ok', () => rooms.refreshSoon()); // the counts now include this user
    connection.onMissed((missed) => this.#missed(missed));
    connection.onLost((id) => this.#gone(id, 'is no longer accessible to you'));
    connection.onRestored(() => this.#restored());
  }

  #message(data) {
    this.people.learn(data.userId, data.user);
    if (!this.rooms.has(data.chatroomId)) this.rooms.refresh().catch(() => {}); // a new direct room
    this.rooms.message(data);
    this.#conversations.get(data.chatroomId)?.take(data);
  }

  /** Process the user's removal from a room, or a departure on another device. */
  #removed(id) {
    if (this.#leaving.has(id)) return;
    if (this.rooms.get(id)?.type === 'public') this.rooms.change(id, { isMember: false });
    else {
      this.#departed.add(id);
      setTimeout(() => this.#departed.delete(id) && this.#gone(id, 'is no longer accessible to you'), REJOINED_MS);
    }
  }

  #rejoined(id) {
    this.#departed.delete(id);
    this.rooms.change(id, { isMember: true });
  }

  /** The server ended the subscription of a room, or the membership: a public room may still be read. */
  async #ended(id) {
    if (!this.rooms.has(id)) this.rooms.drop(id); // its counts
    if (!this.rooms.has(id) || this.#leaving.has(id) || this.#departed.has(id)) return;
    const conversation = this.#conversations.get(id);
    conversation?.release();
    try {
      this.rooms.take(await this.api.room(id));
      if (id === this.rooms.openId) await conversation.load();
    } catch (error) {
      if (error.status === 404) this.#gone(id, 'is no longer accessible to you');
    }
  }

  #gone(id, what) {
    const room = this.rooms.get(id);
    if (room) this.notify(`“${room.name}” ${what}.`);
    this.#drop(id);
  }

  /** Load over REST a gap that the live stream could not replay. */
  #missed({ channel, chatroomId }) {
    if (channel === 'notifications') this.inbox.load().catch(() => {});
    else
      this.#conversations
        .get(chatroomId)
        ?.recover()
        .catch(() => {});
  }

  #restored() {
    this.#refresh();
    this.inbox.load().catch(() => {});
    if (!this.market.symbols.length) this.#load();
    const open = this.conversation; // the live stream replays its gap
    (open?.timeline.isLoaded ? open.loadMembers() : open?.load())?.catch(() => {});
  }
}
