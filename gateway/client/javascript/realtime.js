/**
 * Client for the realtime API: an ES module without dependencies for browsers and Node 20 or later. Before Node 22,
 * start Node with `--experimental-websocket` or pass the option `WebSocket`. The realtime-*.js files are its parts.
 *
 *     import { RealtimeClient } from './realtime.js';
 *
 *     const client = new RealtimeClient(apiKey, token);
 *     client.on('chat:message', (data) => console.log(`${data.userId}: ${data.message}`));
 *     client.on('market:price', (data) => console.log(`${data.symbol}: ${data.price}`));
 *     client.connect();
 *     client.subscribe('chatroom', { chatroomId: 'room_123' });
 *     client.subscribe('market', { symbols: ['EUR/USD', 'GBP/JPY'] });
 *     const { messageId, seq } = await client.sendMessage('room_123', 'Hello everyone!');
 *
 * The client queues requests until the connection is open; reconnects with exponential backoff, or after the delay that
 * the server announces; restores all subscriptions and resumes each room and the inbox after the last item seen,
 * edits and deletions included; delivers each message and each notification once and in order; resends unacknowledged
 * messages under the same clientMessageId, in order per room; honours the server's rate limits; detects a dead link (at
 * the latest 10 s after a heartbeat, which it sends every 30 s; 10 s after any request); and renews the token before it
 * expires.
 *
 * new RealtimeClient(apiKey, token, options?)
 *   token     a JWT, or a function that returns one or a promise of one. The argument is the reason: 'connect',
 *             'expiring' (at most a minute before expiry) or 'refused' (after 4401). With a string, a refusal closes
 *             the client; call `setToken(token)` and `connect()` to continue.
 *   options   url: ws(s)://host/v1/live or http(s)://host; default in a browser: the host of the page.
 *             WebSocket: the class to use. backoffFirstMs 500, backoffMaxMs 30000, connectTimeoutMs 10000,
 *             answerTimeoutMs 10000, heartbeatMs (default: the server's), requestTimeoutMs 120000 (0: no deadline),
 *             pendingMax 1000.
 *
 * connect()                             → promise of the first connection        close()
 * on(type, handler)                     → function that removes the handler      off(type, handler?)
 * subscribe(channel, options)           → promise of the `subscribed` data      unsubscribe(channel, options) → promise
 * sendMessage(chatroomId, text, {clientMessageId, replyTo, mentions, mentionRoom, attachments, symbols}?),
 * sendDirect(userId, text, …), editMessage(chatroomId, messageId, text, {mentions}?), deleteMessage(chatroomId,
 * messageId), react(chatroomId, messageId, emoji, {remove}?) → promise of the `chat:ack` data
 * markRead(chatroomId, seq)             → promise                                typing(chatroomId, isTyping) → sent?
 * getPresence(userIds)                  → promise of [{userId, status, lastSeenAt}]
 * setToken(token)                       wake()                                   state, stats, url, ws
 *
 * Channels: 'chatroom' {chatroomId, since? or sinceRev?}, 'notifications' {since?}, 'market' {symbols, maxRate?},
 * 'community' {communityId}, 'activity' (all rooms of the user). A subscription lasts until you unsubscribe or the server
 * refuses or ends it. It survives reconnects, and a later `connect()` of a closed client restores it.
 *
 * Events: handlers receive the frame's `data`, as published. Every server frame is an event, except repeats:
 * chat:message, chat:updated, chat:deleted, chat:reaction, chat:pinned, chat:typing, chat:read, user:online,
 * user:offline, room:presence, member:joined, member:left, member:invited, chatroom:updated, chatroom:deleted,
 * room:activity, room:unread, market:price, notification:new, post:created, trade:created, session:started,
 * session:ended, auth:ok, subscribed, unsubscribed, chat:ack, pong, presence:state, server:drain, error, any other
 * `a:b`. The client adds:
 *   state              {state, previous, code?, reason?, retryInMs?, resumed?}; state: 'connecting', 'open', 'waiting'
 *                      (reconnects after retryInMs), 'closed' (code 1000: close(); 4401, 4403: access denied; 1003,
 *                      1009, 4400: client at fault)
 *   missed             {channel, chatroomId?, since, seq}: a gap that the server cannot replay; load it over REST
 *   subscription:lost  {channel, chatroomId?, …, code, message}: not restored, e.g. after removal from the room
 *   *                  every event; the handler receives (type, data)
 *
 * Promises reject with RealtimeError {code, message, retryable, retryAfterMs?, details?, closeCode?}; `code` is a code
 * of the protocol, or CLOSED, TIMEOUT, QUEUE_FULL, UNSUBSCRIBED. An ignored promise causes no unhandled rejection.
 * Errors from the server also arrive as `error` events.
 */

import { Core } from './realtime-core.js';
import { RealtimeError } from './realtime-requests.js';

export { RealtimeError };

const PATH = '/v1/live';
const TIMER_MAX_MS = 2 ** 31 - 1;
const IGNORE = () => {};

export class RealtimeClient {
  #core;
  #socket = null;
  #tokenSource; // the function that fetches tokens, or null
  #WebSocket;
  #handlers = new Map(); // type → set of handlers
  #promises = new Map(); // request id → {resolve, reject, choose}
  #connecting = null;
  #timer = null;
  #isRunning = false;
  #page = null; // AbortController of the page's listeners

  constructor(apiKey, token, { url, WebSocket = globalThis.WebSocket, ...settings } = {}) {
    this.apiKey = apiKey;
    this.url = addressOf(url);
    this.#WebSocket = WebSocket;
    this.#tokenSource = typeof token === 'function' ? token : null;
    const own = this.#tokenSource === null ? { token: token ?? '' } : { canRefresh: true };
    this.#core = new Core({ ...settings, ...own });
  }

  /** 'idle', 'connecting', 'open', 'waiting' or 'closed'. */
  get state() {
    return this.#core.state;
  }

  /** Counters since creation: framesIn, framesOut, repeats, reconnects; latencyMs of the last heartbeat, or null. */
  get stats() {
    return { ...this.#core.stats };
  }

  /** The current socket, or null. */
  get ws() {
    return this.#socket;
  }

  connect() {
    this.#connecting ??= settleable();
    const { promise } = this.#connecting;
    if (this.state === 'open') {
      this.#settleConnect(({ resolve }) => resolve());
    }
    this.#listenToThePage();
    this.#run((nowMs) => this.#core.connect(nowMs));
    return promise;
  }

  close() {
    this.#run(() => this.#core.close());
  }

  setToken(token) {
    this.#run((nowMs) => this.#core.tokenReady(token, nowMs));
  }

  wake() {
    this.#run((nowMs) => this.#core.wake(nowMs));
  }

  on(type, handler) {
    this.#handlers.set(type, (this.#handlers.get(type) ?? new Set()).add(handler));
    return () => this.off(type, handler);
  }

  off(type, handler) {
    if (handler === undefined) {
      this.#handlers.delete(type);
    } else {
      this.#handlers.get(type)?.delete(handler);
    }
  }

  subscribe(channel, options = {}) {
    return this.#ask((nowMs) => this.#core.subscribe({ ...options, channel }, nowMs));
  }

  unsubscribe(channel, options = {}) {
    return this.#ask((nowMs) => this.#core.unsubscribe({ ...options, channel }, nowMs));
  }

  sendMessage(chatroomId, message, { clientMessageId = newMessageId(), ...extras } = {}) {
    const frame = { type: 'chat:send', chatroomId, message, clientMessageId, ...extras };
    return this.#ask((nowMs) => this.#core.sendMessage(frame, `room ${chatroomId}`, nowMs));
  }

  sendDirect(userId, message, { clientMessageId = newMessageId(), ...extras } = {}) {
    const frame = { type: 'chat:direct', userId, message, clientMessageId, ...extras };
    return this.#ask((nowMs) => this.#core.sendMessage(frame, `user ${userId}`, nowMs));
  }

  editMessage(chatroomId, messageId, message, { mentions } = {}) {
    const frame = { type: 'chat:edit', chatroomId, messageId, message };
    return this.#change(mentions === undefined ? frame : { ...frame, mentions });
  }

  deleteMessage(chatroomId, messageId) {
    return this.#change({ type: 'chat:delete', chatroomId, messageId });
  }

  react(chatroomId, messageId, emoji, { remove = false } = {}) {
    return this.#change({ type: 'chat:react', chatroomId, messageId, emoji, remove });
  }

  markRead(chatroomId, seq) {
    return this.#ask((nowMs) => this.#core.request({ type: 'chat:read', chatroomId, seq }, nowMs));
  }

  getPresence(userIds) {
    return this.#ask(
      (nowMs) => this.#core.request({ type: 'presence:get', userIds }, nowMs),
      ({ users }) => users,
    );
  }

  /** Announce that the user types. Returns false, without sending, if there is no connection. */
  typing(chatroomId, isTyping = true) {
    return this.#run(() => this.#core.sendNow({ type: 'chat:typing', chatroomId, isTyping }));
  }

  /**
   * Change a stored message. Changes are idempotent, and stay in order with the messages of their room. Exception:
   * while a rate limit pauses messages or changes, the other kind overtakes.
   */
  #change(frame) {
    return this.#ask((nowMs) => this.#core.sendMessage(frame, `room ${frame.chatroomId}`, nowMs));
  }

  // Shell ------------------------------------------------------------------------------------------------------------

  #ask(ask, choose = (data) => data) {
    const settle = settleable();
    this.#run((nowMs) => {
      this.#promises.set(ask(nowMs), { ...settle, choose });
    });
    return settle.promise;
  }

  /** Run one step of the core and carry out its actions. A handler may call back in; actions keep their order. */
  #run(step) {
    const result = step(performance.now());
    if (this.#isRunning) {
      return result;
    }
    this.#isRunning = true;
    try {
      for (let actions = this.#core.take(); actions.length > 0; actions = this.#core.take()) {
        actions.forEach((action) => this.#do(action));
      }
    } finally {
      this.#isRunning = false;
    }
    this.#schedule();
    return result;
  }

  #do(action) {
    switch (action.do) {
      case 'open':
        return this.#open(action.connection);
      case 'send':
        return this.#socket?.send(action.text);
      case 'drop':
        return this.#drop(action.code);
      case 'token':
        return void this.#fetchToken(action.reason);
      case 'emit':
        return this.#emit(action.type, action.data);
      case 'resolve':
        return this.#settle(action.id, ({ resolve, choose }) => resolve(choose(action.data)));
      case 'fail':
        return this.#settle(action.id, ({ reject }) => reject(action.error));
      default:
        throw new TypeError(`unknown action ${action.do}`);
    }
  }

  #open(connection) {
    const report = (name, ...args) => this.#run((nowMs) => this.#core[name](connection, ...args, nowMs));
    try {
      const socket = new this.#WebSocket(this.url);
      this.#socket = socket;
      socket.onopen = () => report('opened');
      socket.onmessage = (event) => report('received', event.data);
      socket.onclose = (event) => report('closed', event.code, event.reason);
      // onclose follows with a code, except in Node 20 after an interrupted handshake
      socket.onerror = () => setTimeout(() => report('closed', 1006, 'the socket failed'));
    } catch (error) {
      report('closed', 1006, String(error));
    }
  }

  /** Abandon the socket without waiting for the closing handshake, which a dead link would never complete. */
  #drop(code) {
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = IGNORE;
      socket.close(code);
    }
  }

  async #fetchToken(reason) {
    try {
      const token = await this.#tokenSource(reason);
      this.#run((nowMs) => this.#core.tokenReady(token, nowMs));
    } catch (error) {
      this.#run((nowMs) => this.#core.tokenFailed(String(error), nowMs));
    }
  }

  #settle(id, how) {
    const promise = this.#promises.get(id);
    this.#promises.delete(id);
    if (promise !== undefined) {
      how(promise);
    }
  }

  #settleConnect(how) {
    const connecting = this.#connecting;
    this.#connecting = null;
    if (connecting !== null) {
      how(connecting);
    }
  }

  #emit(type, data) {
    if (type === 'state' && data.state === 'open') {
      this.#settleConnect(({ resolve }) => resolve());
    } else if (type === 'state' && data.state === 'closed') {
      this.#page?.abort();
      this.#page = null;
      const error = { code: 'CLOSED', message: data.reason || 'closed', closeCode: data.code };
      this.#settleConnect(({ reject }) => reject(new RealtimeError(error)));
    }
    for (const handler of this.#handlers.get(type) ?? []) {
      guarded(() => handler(data));
    }
    for (const handler of this.#handlers.get('*') ?? []) {
      guarded(() => handler(type, data));
    }
  }

  #schedule() {
    clearTimeout(this.#timer);
    const nowMs = performance.now();
    const deadlineMs = this.#core.deadlineMs(nowMs);
    if (deadlineMs !== Infinity) {
      const delayMs = Math.min(Math.max(Math.ceil(deadlineMs - nowMs), 0), TIMER_MAX_MS);
      this.#timer = setTimeout(() => this.#run((atMs) => this.#core.tick(atMs)), delayMs);
    }
  }

  #listenToThePage() {
    if (this.#page === null) {
      this.#page = new AbortController();
      const { document } = globalThis;
      const wakeIfVisible = () => document.visibilityState === 'visible' && this.wake();
      globalThis.addEventListener?.('online', () => this.wake(), this.#page);
      document?.addEventListener('visibilitychange', wakeIfVisible, this.#page);
    }
  }
}

function addressOf(url) {
  const base = globalThis.location?.href;
  if (url === undefined && base === undefined) {
    throw new TypeError('the option `url` is required outside a browser');
  }
  const address = new URL(url ?? PATH, base);
  address.protocol = address.protocol.replace(/^http/, 'ws');
  if (address.pathname === '/') {
    address.pathname = PATH;
  }
  return address.href;
}

/** Return a promise with its settlers. Ignoring the promise causes no unhandled rejection. */
function settleable() {
  let resolve;
  let reject;
  const promise = new Promise((...settlers) => {
    [resolve, reject] = settlers;
  });
  promise.catch(IGNORE);
  return { promise, resolve, reject };
}

/** Call an application's handler. Report what it throws as an uncaught error, without interrupting the client. */
function guarded(call) {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Return a random id. `crypto.randomUUID` does not exist on pages without TLS. */
function newMessageId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
