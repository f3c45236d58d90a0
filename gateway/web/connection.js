/** Live connection of the page: a wrapper of realtime.js that records state for the banner and the inspector. */

import { Observable } from './changes.js';
import { RealtimeClient } from './realtime.js';

const LOG_FRAMES = 40;
const LATENCIES = 40;

export class Connection extends Observable {
  #client;
  #followed = new Set();
  state = 'idle'; // idle, connecting, open, waiting, closed
  attempts = 0; // failed attempts since the connection was last open
  retryAtMs = null;
  lastClose = null; // {code, reason} of the previous connection
  welcome = null; // data of `auth:ok`: {userId, sessionId, …}
  openedAtMs = null;
  latencies = []; // ms, oldest first
  log = []; // newest first: {type, atMs, count}; consecutive frames of one type share an entry

  /** `token(reason)` returns a token or a promise of one. */
  constructor(token) {
    super();
    this.#client = new RealtimeClient('', token);
    this.#client.on('state', (change) => this.#moved(change));
    this.#client.on('auth:ok', (data) => {
      this.welcome = data;
    });
    this.#client.on('pong', () => this.#measured());
    this.#client.on('*', (type) => this.#logged(type));
  }

  #moved({ state, code = null, reason = '', retryInMs }) {
    this.state = state;
    this.retryAtMs = retryInMs === undefined ? null : Date.now() + retryInMs;
    if (state === 'waiting' || state === 'closed') {
      this.attempts += 1;
      this.lastClose = { code, reason };
    } else if (state === 'open') {
      this.attempts = 0;
      this.openedAtMs = Date.now();
      this.#client.wake(); // ping at once, to measure latency
    }
    this.changed();
  }

  #measured() {
    const { latencyMs } = this.#client.stats;
    if (latencyMs === null) return;
    this.latencies = [...this.latencies, latencyMs].slice(-LATENCIES);
    this.changed();
  }

  #logged(type) {
    if (type === 'state') return;
    const [newest] = this.log;
    if (newest?.type === type) Object.assign(newest, { atMs: Date.now(), count: newest.count + 1 });
    else this.log = [{ type, atMs: Date.now(), count: 1 }, ...this.log].slice(0, LOG_FRAMES);
    this.changed();
  }

  /** Counters: framesIn, framesOut, repeats, reconnects. */
  get stats() {
    return this.#client.stats;
  }

  get url() {
    return this.#client.url;
  }

  get isOpen() {
    return this.state === 'open';
  }

  open() {
    this.#client.connect();
  }

  close() {
    this.#client.close();
  }

  /** Reconnect at once; ping if the connection is open. */
  reconnectOrPing() {
    this.#client.wake();
  }

  on(type, handler) {
    this.#client.on(type, handler);
  }

  /** Call `handler` with each channel whose gap could not be replayed: `{channel, chatroomId?}`. */
  onMissed(handler) {
    this.#client.on('missed', handler);
  }

  /** Call `handler` after each reconnect. */
  onRestored(handler) {
    this.#client.on('state', ({ state, resumed }) => state === 'open' && resumed && handler());
  }

  /** Call `handler` with the id of each room whose subscription the server no longer permits. */
  onLost(handler) {
    this.#client.on('subscription:lost', ({ chatroomId }) => chatroomId && handler(chatroomId));
  }

  subscribe(channel, options) {
    this.#client.subscribe(channel, options);
  }

  /** Subscribe to a room, after entry `sinceRev` of its log if that is given. Repeated calls have no effect. */
  follow(chatroomId, sinceRev) {
    if (this.#followed.has(chatroomId)) return;
    this.#followed.add(chatroomId);
    this.#client.subscribe('chatroom', sinceRev === undefined ? { chatroomId } : { chatroomId, sinceRev });
  }

  unfollow(chatroomId) {
    if (this.#followed.delete(chatroomId)) this.#client.unsubscribe('chatroom', { chatroomId });
  }

  /** Send a message and return a promise of its ack. Sends with the same id store one message. */
  send(chatroomId, text, clientMessageId, extras = {}) {
    return this.#client.sendMessage(chatroomId, text, { clientMessageId, ...extras });
  }

  sendDirect(userId, text, clientMessageId, extras = {}) {
    return this.#client.sendDirect(userId, text, { clientMessageId, ...extras });
  }

  edit(chatroomId, messageId, text, mentions) {
    return this.#client.editMessage(chatroomId, messageId, text, { mentions });
  }

  remove(chatroomId, messageId) {
    return this.#client.deleteMessage(chatroomId, messageId);
  }

  /** Add the user's reaction, or remove it. */
  react(chatroomId, messageId, emoji, remove) {
    return this.#client.react(chatroomId, messageId, emoji, { remove });
  }

  type(chatroomId, isTyping) {
    this.#client.typing(chatroomId, isTyping);
  }

  read(chatroomId, seq) {
    this.#client.markRead(chatroomId, seq);
  }
}
