// One client's conversation with the server, whatever happens to the link: what it listens to, what it asked, what of
// all that comes back is new. Pure: frames, times (milliseconds of one monotonic clock) and chance come in, actions
// come out; realtime.js carries them out.
//
// Actions: {do: 'token', reason} fetch a token and call tokenReady or tokenFailed · {do: 'open', connection} open a
// socket · {do: 'send', text} · {do: 'drop', code} leave the socket, waiting for nothing · {do: 'emit', type, data} ·
// {do: 'settle', id, data} and {do: 'fail', id, error} for the promise of a request.

import { Interest } from './realtime-interest.js';
import { LINK_DEFAULTS, Link, sizeOf } from './realtime-link.js';
import { RealtimeError, Requests } from './realtime-requests.js';

export const DEFAULTS = Object.freeze({
  ...LINK_DEFAULTS,
  requestTimeoutMs: 120_000, // messages and other requests; subscriptions wait for ever
  pendingMax: 1_000,
});

const RETRY_MAX_MS = 10_000;
const ID_MAX_BYTES = 32; // more than `"id":…,` takes

export class Core {
  #settings;
  #actions = [];
  #link;
  #interest = new Interest();
  #requests;

  /** `token` is null if it is fetched; `canRefresh`: whether it can be. `random` returns [0, 1). */
  constructor(options = {}) {
    this.#settings = { ...DEFAULTS, ...options };
    this.#requests = new Requests(this.#settings.pendingMax);
    this.#link = new Link(this.#settings, (action) => this.#actions.push(action), {
      restore: () => this.#restore(),
      disconnected: () => this.#disconnected(),
      stopped: (code, reason) => this.#stopped(code, reason),
    });
  }

  get state() {
    return this.#link.state;
  }

  get stats() {
    return this.#link.stats;
  }

  /** The actions since the last call, in order. */
  take() {
    const actions = this.#actions;
    this.#actions = [];
    return actions;
  }

  /** When `tick` is to be called, at the latest. */
  deadlineMs(nowMs) {
    const connection = this.#link.isOpen ? this.#link.connection : 0;
    return Math.min(this.#link.deadlineMs, this.#requests.nextMs(connection, nowMs));
  }

  // What the application wants ---------------------------------------------------------------------------------------

  connect(nowMs) {
    this.#link.connect(nowMs);
  }

  close() {
    this.#link.close();
  }

  wake(nowMs) {
    this.#link.wake(nowMs);
  }

  /** Returns the request's id, for `settle` and `fail`. */
  subscribe(target, nowMs) {
    if (this.#rejection({}) === null) {
      this.#interest.add(target);
    }
    return this.#ask({}, { target }, nowMs);
  }

  /** Settles at once if there is no connection: a new one would not have it. */
  unsubscribe(target, nowMs) {
    this.#interest.remove(target);
    for (const request of this.#requests.all()) {
      if (request.target !== null && this.#interest.remaining(request.target) === null) {
        this.#fail(request, { code: 'UNSUBSCRIBED', message: 'unsubscribed before it was answered' });
      }
    }
    if (this.#link.isAuthSent) {
      this.#interest.unsubscribing(target);
      return this.#ask({ type: 'unsubscribe', ...target }, {}, nowMs);
    }
    const id = this.#requests.newId();
    this.#actions.push({ do: 'settle', id, data: target });
    return id;
  }

  /** A chat:send or chat:direct: in order with the others of its `lane`, resent until it is acked. */
  sendMessage(frame, lane, nowMs) {
    return this.#ask(frame, { lane, deadlineMs: this.#deadlineOf(nowMs) }, nowMs);
  }

  /** Anything else that is answered. */
  request(frame, nowMs) {
    return this.#ask(frame, { deadlineMs: this.#deadlineOf(nowMs) }, nowMs);
  }

  /** A frame of worth only now: false, and not sent, if there is no connection. */
  sendNow(frame) {
    if (this.#link.isOpen) {
      this.#link.send(frame);
    }
    return this.#link.isOpen;
  }

  // What the shell reports -------------------------------------------------------------------------------------------

  tokenReady(token, nowMs) {
    this.#link.tokenReady(token, nowMs);
  }

  tokenFailed(message, nowMs) {
    this.#link.tokenFailed(message, nowMs);
  }

  opened(connection, nowMs) {
    this.#link.opened(connection, nowMs);
  }

  closed(connection, code, reason, nowMs) {
    this.#link.closed(connection, code, reason, nowMs);
  }

  received(connection, text, nowMs) {
    if (!this.#link.isCurrent(connection)) {
      return;
    }
    const frame = parse(text);
    this.#link.frameReceived(frame, nowMs);
    if (frame !== null) {
      this.#process(frame, nowMs);
    }
    this.#sendDue(nowMs);
  }

  tick(nowMs) {
    for (const request of this.#requests.expired(nowMs)) {
      this.#fail(request, { code: 'TIMEOUT', message: 'not answered in time', retryable: true });
    }
    this.#link.tick(nowMs);
    this.#sendDue(nowMs);
  }

  // The link ---------------------------------------------------------------------------------------------------------

  #restore() {
    const pending = this.#requests.all().filter(({ target }) => target !== null);
    const targets = this.#interest.targetsExcept(pending.map(({ target }) => target));
    const restored = targets.map((target) => this.#requests.add({}, { target, isInternal: true }));
    return [...pending, ...restored].map((request) => this.#subscribeFrame(request));
  }

  /** A lost connection takes with it what was asked for its sake alone, and what was to be unsubscribed. */
  #disconnected() {
    this.#interest.disconnected();
    for (const request of this.#requests.all()) {
      const { type, id, ...target } = request.frame;
      if (request.isInternal) {
        this.#requests.remove(request.id);
      } else if (type === 'unsubscribe') {
        this.#requests.remove(request.id);
        this.#actions.push({ do: 'settle', id, data: target });
      }
    }
  }

  #stopped(code, reason) {
    for (const request of this.#requests.all()) {
      this.#fail(request, { code: 'CLOSED', message: `the client is closed: ${reason}`, closeCode: code });
    }
  }

  // Requests ---------------------------------------------------------------------------------------------------------

  #ask(frame, options, nowMs) {
    const error = this.#rejection(frame);
    if (error !== null) {
      const id = this.#requests.newId();
      this.#actions.push({ do: 'fail', id, error: new RealtimeError(error) });
      return id;
    }
    const request = this.#requests.add(frame, options);
    this.#sendDue(nowMs);
    return request.id;
  }

  #rejection(frame) {
    const { maxMessageBytes } = this.#link.server;
    if (this.state === 'closed') {
      return { code: 'CLOSED', message: 'the client is closed' };
    }
    if (this.#requests.isFull) {
      return { code: 'QUEUE_FULL', message: `${this.#settings.pendingMax} requests wait already`, retryable: true };
    }
    if (sizeOf(frame) + ID_MAX_BYTES > maxMessageBytes) {
      return { code: 'TOO_LARGE', message: `larger than ${maxMessageBytes} bytes` };
    }
    return null;
  }

  /** Send what waits. */
  #sendDue(nowMs) {
    if (this.#link.isOpen) {
      for (const request of this.#requests.due(this.#link.connection, nowMs)) {
        this.#link.ask(request.target === null ? this.#sent(request).frame : this.#subscribeFrame(request), nowMs);
      }
    }
  }

  #sent(request) {
    request.sentOn = this.#link.connection;
    request.attempts += 1;
    return request;
  }

  #subscribeFrame(request) {
    const target = this.#interest.remaining(request.target) ?? request.target;
    const frame = { ...this.#interest.frameOf(target), id: request.id };
    this.#sent(request).since = frame.since ?? null;
    return frame;
  }

  #deadlineOf(nowMs) {
    return nowMs + (this.#settings.requestTimeoutMs || Infinity);
  }

  // Frames -----------------------------------------------------------------------------------------------------------

  #process(frame, nowMs) {
    const { type, data } = frame;
    const verdict = this.#interest.accept(type, data);
    if (verdict === null) {
      this.#link.stats.repeats += 1;
      return;
    }
    this.#reportMissed(verdict.missed);
    if (type === 'unsubscribed') {
      this.#interest.unsubscribed(data);
    }
    if (type === 'chatroom:deleted') {
      this.#interest.remove({ channel: 'chatroom', chatroomId: data.chatroomId });
    } else if (type === 'unsubscribed' && frame.id === undefined) {
      this.#interest.remove(data); // the server has ended it by itself
    }
    this.#emit(type, data);
    const request = this.#requests.get(frame.id);
    if (request !== undefined && type === 'error') {
      this.#rejected(request, data, nowMs);
    } else if (request !== undefined) {
      this.#answered(request, frame);
    }
  }

  #answered(request, { type, data }) {
    this.#requests.remove(request.id);
    if (request.target !== null) {
      this.#reportMissed(this.#interest.subscribed(request.target, request.since, data));
    } else if (request.frame.type === 'chat:direct' && type === 'chat:ack') {
      this.#directAcked(request, data);
    }
    if (!request.isInternal) {
      this.#actions.push({ do: 'settle', id: request.id, data });
    }
  }

  /** A direct message that was resent may have been shown before this connection was there: its room is resumed. */
  #directAcked(request, data) {
    const isNewRoom = this.#interest.acked(data);
    if (isNewRoom && request.attempts > 1) {
      this.#requests.add({}, { target: { channel: 'chatroom', chatroomId: data.chatroomId }, isInternal: true });
    }
  }

  #rejected(request, data, nowMs) {
    if (data.retryable) {
      const delayMs = data.retryAfterMs ?? Math.min(this.#settings.backoffFirstMs * 2 ** request.attempts, RETRY_MAX_MS);
      this.#requests.retry(request, nowMs + delayMs, data.code === 'RATE_LIMITED');
      return;
    }
    if (request.target !== null) {
      this.#interest.rejected(request.target);
    }
    if (request.target !== null && request.isInternal) {
      this.#emit('subscription:lost', { ...request.target, code: data.code, message: data.message });
    }
    this.#fail(request, data);
  }

  #fail(request, error) {
    this.#requests.remove(request.id);
    if (!request.isInternal) {
      this.#actions.push({ do: 'fail', id: request.id, error: new RealtimeError(error) });
    }
  }

  #reportMissed(missed) {
    if (missed !== null) {
      this.#emit('missed', missed);
    }
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
