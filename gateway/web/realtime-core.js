// One client's conversation with the server, whatever happens to the link. Pure: frames, times (milliseconds of one
// monotonic clock) and chance come in, actions come out; realtime.js carries them out.
//
//   idle ── connect ──> connecting (token, socket, auth) ── auth:ok ──> open
//                        ^  │ fails                              │ link lost
//                        │  v                                    │
//                       waiting <────────────────────────────────┘     any ── close, 4403, … ──> closed
//
// Actions: {do: 'token', reason} fetch a token and call tokenReady or tokenFailed · {do: 'open', connection} open a
// socket · {do: 'send', text} · {do: 'drop', code} leave the socket, waiting for nothing · {do: 'emit', type, data} ·
// {do: 'settle', id, data} and {do: 'fail', id, error} for the promise of a request.

import { Interest } from './realtime-interest.js';
import { RealtimeError, Requests } from './realtime-requests.js';

export const DEFAULTS = Object.freeze({
  backoffFirstMs: 500,
  backoffMaxMs: 30_000,
  connectTimeoutMs: 10_000, // each for the token, the socket, and auth
  answerTimeoutMs: 10_000, // nothing at all heard for so long after something was asked: the link is dead
  heartbeatMs: 0, // 0: as the server says
  requestTimeoutMs: 120_000, // messages and other requests; subscriptions wait for ever
  pendingMax: 1_000,
});

const STABLE_MS = 5_000; // a connection that lived so long ends a row of failures
const ABUSE_PAUSE_MS = 10_000;
const REFUSED_TOKENS_MAX = 3;
const RENEW_BEFORE_MS = 60_000;
const RESTORED_IN_AUTH_MAX = 200;
const FINAL_CODES = new Set([1003, 1009, 4400, 4403]);
const RESTARTING_CODES = new Set([1001, 1006, 1012]);
const OVERLOADED = 1013;
const UNAUTHORIZED = 4401;
const RATE_ABUSE = 4429;

const utf8 = new TextEncoder();

export class Core {
  state = 'idle';
  stats = { framesIn: 0, framesOut: 0, repeats: 0, reconnects: 0, latencyMs: null };

  #settings;
  #random;
  #interest = new Interest();
  #requests;
  #actions = [];
  #connections = 0;
  #connection = 0; // the number of the one in use; 0 is none
  #isAuthSent = false;
  #token = null;
  #tokenEndsAtMs = Infinity;
  #canRefresh;
  #attempt = 0;
  #refusedTokens = 0;
  #untilMs = Infinity; // of waiting, or the deadline of connecting
  #openedAtMs = 0;
  #wasOpen = false;
  #drainMs = null;
  #server = { heartbeatInterval: 30_000, maxMessageBytes: 65_536 };
  #pingAtMs = Infinity;
  #pings = new Map(); // id → sent at
  #answerByMs = Infinity;
  #renewAtMs = Infinity;
  #isFetchingToken = false;

  /** `token` is null if it is fetched; `canRefresh`: whether it can be. `random` returns [0, 1). */
  constructor({ token = null, canRefresh = false, random = Math.random, ...settings } = {}) {
    this.#settings = { ...DEFAULTS, ...settings };
    this.#token = token;
    this.#canRefresh = canRefresh;
    this.#random = random;
    this.#requests = new Requests(this.#settings.pendingMax);
  }

  /** The actions since the last call, in order. */
  take() {
    const actions = this.#actions;
    this.#actions = [];
    return actions;
  }

  /** When `tick` is to be called, at the latest. */
  deadlineMs(nowMs) {
    const isOpen = this.state === 'open';
    const ofState = isOpen ? Math.min(this.#pingAtMs, this.#answerByMs, this.#renewAtMs) : this.#untilMs;
    return Math.min(ofState, this.#requests.nextMs(isOpen ? this.#connection : 0, nowMs));
  }

  // What the application wants ---------------------------------------------------------------------------------------

  connect(nowMs) {
    if (['idle', 'closed', 'waiting'].includes(this.state)) {
      this.#refusedTokens = 0;
      this.#begin(nowMs);
    }
  }

  close() {
    if (this.state !== 'closed') {
      this.#stop(1000, 'closed by the application');
    }
  }

  /** The network is back, or the page is looked at again: do not wait any longer, and do not trust the link. */
  wake(nowMs) {
    if (this.state === 'waiting') {
      this.#begin(nowMs);
    } else if (this.state === 'open') {
      this.#ping(nowMs);
    }
  }

  /** Returns the request's id, for `settle` and `fail`. */
  subscribe(target, nowMs) {
    this.#interest.want(target);
    return this.#ask({}, { target }, nowMs);
  }

  /** Settles at once if there is no connection: a new one would not have it. */
  unsubscribe(target, nowMs) {
    this.#interest.forget(target);
    for (const request of this.#requests.all()) {
      if (request.target !== null && this.#interest.remaining(request.target) === null) {
        this.#fail(request, { code: 'UNSUBSCRIBED', message: 'unsubscribed before it was answered' });
      }
    }
    if (this.#isAuthSent) {
      this.#interest.leave(target);
      return this.#ask({ type: 'unsubscribe', ...target }, {}, nowMs);
    }
    const id = this.#requests.newId();
    this.#actions.push({ do: 'settle', id, data: target });
    return id;
  }

  /** A chat:send or chat:direct: in order with the others of its `lane`, resent until it is acked. */
  sendMessage(frame, lane, nowMs) {
    return this.#ask(frame, { lane, deadlineMs: this.#requestDeadlineMs(nowMs) }, nowMs);
  }

  /** Anything else that is answered. */
  request(frame, nowMs) {
    return this.#ask(frame, { deadlineMs: this.#requestDeadlineMs(nowMs) }, nowMs);
  }

  /** A frame of worth only now: false, and not sent, if there is no connection. */
  sendNow(frame) {
    if (this.state !== 'open') {
      return false;
    }
    this.#send(frame);
    return true;
  }

  // What the shell reports -------------------------------------------------------------------------------------------

  tokenReady(token, nowMs) {
    this.#token = token;
    this.#tokenEndsAtMs = Infinity;
    this.#isFetchingToken = false;
    if (this.state === 'connecting' && this.#connection === 0) {
      this.#open(nowMs);
    } else if (this.state === 'open') {
      this.#renewAtMs = Infinity;
      this.#expectAnswer(nowMs);
      this.#send({ type: 'auth', token, id: 'auth' });
    }
  }

  tokenFailed(message, nowMs) {
    this.#isFetchingToken = false;
    if (this.state === 'connecting' && this.#connection === 0) {
      this.#wait(this.#backoffMs(), null, `no token: ${message}`, nowMs);
    } else if (this.state === 'open') {
      this.#renewAtMs = nowMs + this.#settings.connectTimeoutMs;
    }
  }

  opened(connection, nowMs) {
    if (this.state === 'connecting' && connection === this.#connection) {
      this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
      this.#authenticate();
    }
  }

  closed(connection, code, reason, nowMs) {
    if (connection === this.#connection && ['connecting', 'open'].includes(this.state)) {
      this.#lost(code, reason, nowMs);
    }
  }

  received(connection, text, nowMs) {
    if (connection !== this.#connection || !['connecting', 'open'].includes(this.state)) {
      return;
    }
    this.#answerByMs = Infinity;
    this.stats.framesIn += 1;
    const frame = parse(text);
    if (frame === null) {
      return;
    }
    const taken = this.#interest.take(frame.type, frame.data);
    if (taken === null) {
      this.stats.repeats += 1;
      return;
    }
    if (taken.missed !== null) {
      this.#emit('missed', taken.missed);
    }
    this.#act(frame, nowMs);
    this.#emit(frame.type, frame.data);
    this.#settle(frame, nowMs);
    this.#pump(nowMs);
  }

  tick(nowMs) {
    for (const request of this.#requests.expired(nowMs)) {
      this.#failed(request, { code: 'TIMEOUT', message: 'not answered in time', retryable: true });
    }
    if (this.state === 'open') {
      this.#tickOpen(nowMs);
    } else if (this.#untilMs <= nowMs) {
      if (this.state === 'waiting') {
        this.#begin(nowMs);
      } else if (this.state === 'connecting') {
        this.#drop('no answer in time', nowMs);
      }
    }
    this.#pump(nowMs);
  }

  #tickOpen(nowMs) {
    if (this.#answerByMs <= nowMs) {
      this.#drop('the link is silent', nowMs);
      return;
    }
    if (this.#pingAtMs <= nowMs) {
      this.#ping(nowMs);
    }
    if (this.#renewAtMs <= nowMs) {
      this.#renewAtMs = Infinity;
      this.#fetchToken('expiring');
    }
  }

  // Connecting -------------------------------------------------------------------------------------------------------

  #begin(nowMs) {
    this.#move('connecting');
    this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
    if (this.#token === null || (this.#canRefresh && this.#tokenEndsAtMs <= nowMs)) {
      this.#fetchToken(this.#refusedTokens > 0 ? 'refused' : 'connect');
    } else {
      this.#open(nowMs);
    }
  }

  #fetchToken(reason) {
    if (!this.#isFetchingToken) {
      this.#isFetchingToken = true;
      this.#actions.push({ do: 'token', reason });
    }
  }

  #open(nowMs) {
    this.#connections += 1;
    this.#connection = this.#connections;
    this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
    this.#drainMs = null;
    this.#pings.clear();
    this.#actions.push({ do: 'open', connection: this.#connection });
  }

  /** One frame restores all subscriptions; those that it has no room for come right behind it. */
  #authenticate() {
    const asked = this.#requests.all().filter((request) => request.target !== null);
    for (const target of this.#interest.targetsBut(asked.map(({ target }) => target))) {
      asked.push(this.#requests.add({}, { target, isOwn: true }));
    }
    this.#isAuthSent = true;
    const frame = { type: 'auth', token: this.#token, id: 'auth' };
    const frames = asked.map((request) => this.#subscribeFrame(request)).filter((entry) => entry !== null);
    let room = this.#server.maxMessageBytes - sizeOf({ ...frame, subscriptions: [] });
    const fitting = frames.findIndex((entry) => (room -= sizeOf(entry) + 1) < 0);
    const count = Math.min(fitting < 0 ? frames.length : fitting, RESTORED_IN_AUTH_MAX);
    this.#send(count === 0 ? frame : { ...frame, subscriptions: frames.slice(0, count) });
    frames.slice(count).forEach((entry) => this.#send(entry));
  }

  #subscribeFrame(request) {
    const target = this.#interest.remaining(request.target);
    if (target === null) {
      return null;
    }
    const frame = { ...this.#interest.frameOf(target), id: request.id };
    request.since = frame.since ?? null;
    request.sentOn = this.#connection;
    request.tries += 1;
    return frame;
  }

  #welcome(data, nowMs) {
    this.#server = { ...this.#server, ...data };
    const lifeMs = Date.parse(data.expiresAt) - Date.parse(data.serverTime); // by the server's clock alone
    const renewInMs = lifeMs - Math.min(RENEW_BEFORE_MS, lifeMs / 4);
    this.#renewAtMs = this.#canRefresh && renewInMs >= 0 ? nowMs + renewInMs : Infinity;
    this.#tokenEndsAtMs = Number.isFinite(lifeMs) ? nowMs + lifeMs : Infinity;
    this.#refusedTokens = 0;
    if (this.state === 'open') {
      return;
    }
    this.#openedAtMs = nowMs;
    this.#untilMs = Infinity;
    this.#pingAtMs = nowMs + this.#heartbeatMs();
    this.stats.reconnects += this.#wasOpen ? 1 : 0;
    this.#move('open', { resumed: this.#wasOpen });
    this.#wasOpen = true;
  }

  // Leaving ----------------------------------------------------------------------------------------------------------

  #drop(reason, nowMs) {
    this.#actions.push({ do: 'drop', code: 4000 });
    this.#lost(null, reason, nowMs);
  }

  #lost(code, reason, nowMs) {
    const livedMs = this.state === 'open' ? nowMs - this.#openedAtMs : -1;
    this.#afterLoss();
    if (livedMs >= STABLE_MS) {
      this.#attempt = 0;
    }
    if (FINAL_CODES.has(code)) {
      this.#stop(code, reason);
    } else if (code === UNAUTHORIZED) {
      this.#tokenRefused(reason, nowMs);
    } else if (this.#drainMs !== null && (code === null || RESTARTING_CODES.has(code))) {
      this.#wait(this.#drainMs, code, reason, nowMs);
    } else {
      const leastMs = code === RATE_ABUSE ? ABUSE_PAUSE_MS : code === OVERLOADED ? this.#settings.backoffFirstMs : 0;
      this.#wait(leastMs + this.#backoffMs(), code, reason, nowMs);
    }
  }

  /** What a lost connection takes with it: its own requests, and what was to be unsubscribed. */
  #afterLoss() {
    this.#connection = 0;
    this.#isAuthSent = false;
    this.#pingAtMs = this.#answerByMs = this.#renewAtMs = Infinity;
    this.#interest.disconnected();
    for (const request of this.#requests.all()) {
      if (request.isOwn) {
        this.#requests.remove(request.id);
      } else if (request.frame.type === 'unsubscribe') {
        const { type, id, ...target } = request.frame;
        this.#requests.remove(request.id);
        this.#actions.push({ do: 'settle', id: request.id, data: target });
      }
    }
  }

  #tokenRefused(reason, nowMs) {
    this.#refusedTokens += 1;
    if (!this.#canRefresh || this.#refusedTokens > REFUSED_TOKENS_MAX) {
      this.#stop(UNAUTHORIZED, reason);
      return;
    }
    this.#token = null;
    this.#wait(this.#backoffMs(), UNAUTHORIZED, reason, nowMs);
  }

  #wait(delayMs, code, reason, nowMs) {
    this.#untilMs = nowMs + delayMs;
    this.#isFetchingToken = false; // one that hangs is not waited for
    this.#move('waiting', { code, reason, retryInMs: Math.round(delayMs) });
  }

  #stop(code, reason) {
    this.#afterLoss();
    this.#untilMs = Infinity;
    this.#attempt = 0;
    this.#isFetchingToken = false;
    this.#actions.push({ do: 'drop', code: 1000 });
    this.#move('closed', { code, reason });
    for (const request of this.#requests.all()) {
      this.#fail(request, { code: 'CLOSED', message: `the client is closed: ${reason}`, closeCode: code });
    }
  }

  /** Doubles from attempt to attempt; the first one after a good connection comes soon, for each client another. */
  #backoffMs() {
    const { backoffFirstMs, backoffMaxMs } = this.#settings;
    const topMs = Math.min(backoffFirstMs * 2 ** this.#attempt, backoffMaxMs);
    const bottomMs = this.#attempt === 0 ? 0 : topMs / 2;
    this.#attempt += 1;
    return bottomMs + this.#random() * (topMs - bottomMs);
  }

  // Frames -----------------------------------------------------------------------------------------------------------

  #ask(frame, options, nowMs) {
    const request = this.#requests.add(frame, options);
    if (request === null || this.state === 'closed') {
      const id = request === null ? this.#requests.newId() : request.id;
      this.#requests.remove(id);
      const error = request === null
        ? { code: 'QUEUE_FULL', message: `${this.#settings.pendingMax} requests wait already`, retryable: true }
        : { code: 'CLOSED', message: 'the client is closed' };
      this.#actions.push({ do: 'fail', id, error: new RealtimeError(error) });
      return id;
    }
    request.frame.id = request.id;
    if (options.target === undefined && sizeOf(request.frame) > this.#server.maxMessageBytes) {
      this.#fail(request, { code: 'TOO_LARGE', message: `larger than ${this.#server.maxMessageBytes} bytes` });
    }
    this.#pump(nowMs);
    return request.id;
  }

  /** Send what waits. */
  #pump(nowMs) {
    if (this.state !== 'open') {
      return;
    }
    for (const request of this.#requests.due(this.#connection, nowMs)) {
      const frame = request.target === null ? request.frame : this.#subscribeFrame(request);
      if (frame === null) {
        this.#requests.remove(request.id);
        continue;
      }
      if (request.target === null) {
        request.sentOn = this.#connection;
        request.tries += 1;
      }
      this.#expectAnswer(nowMs);
      this.#send(frame);
    }
  }

  #ping(nowMs) {
    const id = this.#requests.newId();
    this.#pings.set(id, nowMs);
    this.#pingAtMs = nowMs + this.#heartbeatMs();
    this.#expectAnswer(nowMs);
    this.#send({ type: 'ping', id });
  }

  #expectAnswer(nowMs) {
    this.#answerByMs = Math.min(this.#answerByMs, nowMs + this.#settings.answerTimeoutMs);
  }

  #send(frame) {
    this.stats.framesOut += 1;
    this.#actions.push({ do: 'send', text: JSON.stringify(frame) });
  }

  /** What a frame means to the client itself. */
  #act(frame, nowMs) {
    switch (frame.type) {
      case 'auth:ok':
        return this.#welcome(frame.data, nowMs);
      case 'pong':
        this.stats.latencyMs = this.#pings.has(frame.id) ? nowMs - this.#pings.get(frame.id) : this.stats.latencyMs;
        this.#pings.delete(frame.id);
        return undefined;
      case 'server:drain':
        this.#drainMs = frame.data.reconnectAfterMs;
        return undefined;
      case 'unsubscribed':
        this.#interest.left(frame.data);
        return frame.id === undefined ? this.#interest.forget(frame.data) : undefined;
      case 'chatroom:deleted':
        return this.#interest.forget({ channel: 'chatroom', chatroomId: frame.data.chatroomId });
      default:
        return undefined;
    }
  }

  /** The answer to a request. */
  #settle(frame, nowMs) {
    const request = frame.id === undefined ? undefined : this.#requests.get(frame.id);
    if (request === undefined) {
      return;
    }
    if (frame.type === 'error') {
      this.#refused(request, frame.data, nowMs);
      return;
    }
    this.#requests.remove(request.id);
    if (request.target !== null) {
      const missed = this.#interest.subscribed(request.target, request.since, frame.data);
      if (missed !== null) {
        this.#emit('missed', missed);
      }
    } else if (frame.type === 'chat:ack' && !this.#isKnown(request, frame.data)) {
      const target = { channel: 'chatroom', chatroomId: frame.data.chatroomId };
      this.#requests.add({}, { target, isOwn: true });
    }
    if (!request.isOwn) {
      this.#actions.push({ do: 'settle', id: request.id, data: frame.data });
    }
  }

  /** A direct message that was resent may have been shown to sockets before this one was there: then it is resumed. */
  #isKnown(request, data) {
    return request.frame.type !== 'chat:direct' || this.#interest.acked(data) || request.tries === 1;
  }

  #refused(request, data, nowMs) {
    if (data.retryable && !(request.deadlineMs <= nowMs)) {
      const delayMs = data.retryAfterMs ?? Math.min(this.#settings.backoffFirstMs * 2 ** request.tries, 10_000);
      this.#requests.retry(request, nowMs + delayMs, data.code === 'RATE_LIMITED');
      return;
    }
    if (request.target !== null) {
      this.#interest.refused(request.target);
      if (request.isOwn) {
        this.#emit('subscription:lost', { ...request.target, code: data.code, message: data.message });
      }
    }
    this.#fail(request, data);
  }

  #requestDeadlineMs(nowMs) {
    return nowMs + (this.#settings.requestTimeoutMs || Infinity);
  }

  #heartbeatMs() {
    return this.#settings.heartbeatMs || this.#server.heartbeatInterval;
  }

  #fail(request, error) {
    this.#requests.remove(request.id);
    this.#failed(request, error);
  }

  #failed(request, error) {
    if (!request.isOwn) {
      this.#actions.push({ do: 'fail', id: request.id, error: new RealtimeError(error) });
    }
  }

  #move(state, more = {}) {
    const previous = this.state;
    this.state = state;
    this.#emit('state', { state, previous, ...more });
  }

  #emit(type, data) {
    this.#actions.push({ do: 'emit', type, data });
  }
}

function parse(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame?.type === 'string' ? frame : null;
  } catch {
    return null;
  }
}

function sizeOf(frame) {
  return utf8.encode(JSON.stringify(frame)).length;
}
