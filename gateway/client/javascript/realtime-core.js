// Conversation of one client with the server: subscriptions, requests and deduplication across connections. Pure:
// frames, times (milliseconds of one monotonic clock) and random numbers are inputs, actions are the output;
// realtime.js carries them out.
//
// Actions:
//   {do: 'token', reason}     fetch a token, then call tokenReady or tokenFailed
//   {do: 'open', connection}  open a socket and report its events under this connection number
//   {do: 'send', text}        send a text frame on the current socket
//   {do: 'drop', code}        close the socket without waiting for the closing handshake
//   {do: 'emit', type, data}  pass an event to the application
//   {do: 'resolve', id, data}, {do: 'fail', id, error}  settle the promise of a request

import { Interest } from './realtime-interest.js';
import { LINK_DEFAULTS, Link, sizeOf } from './realtime-link.js';
import { RealtimeError, Requests } from './realtime-requests.js';

export const DEFAULTS = Object.freeze({
  ...LINK_DEFAULTS,
  requestTimeoutMs: 120_000, // messages and other requests; subscriptions have no deadline
  pendingMax: 1_000,
});

const RETRY_MAX_MS = 10_000;
const PAUSE_MAX_MS = 60_000; // the window of the limits on messages and on changes; a longer wait belongs to another limit
const ID_MAX_BYTES = 32; // bound on the encoded `"id":…,`

export class Core {
  #settings;
  #actions = [];
  #link;
  #interest = new Interest();
  #requests;

  /** `token` is null if it must be fetched; `canRefresh` states whether it can be. `random` returns [0, 1). */
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

  /** Return the actions since the last call, in order. */
  take() {
    const actions = this.#actions;
    this.#actions = [];
    return actions;
  }

  /** Return the time by which the shell must call `tick`. */
  deadlineMs(nowMs) {
    const connection = this.#link.isOpen ? this.#link.connection : 0;
    return Math.min(this.#link.deadlineMs, this.#requests.nextMs(connection, nowMs));
  }

  // Calls of the application -----------------------------------------------------------------------------------------

  connect(nowMs) {
    this.#link.connect(nowMs);
  }

  close() {
    this.#link.close();
  }

  wake(nowMs) {
    this.#link.wake(nowMs);
  }

  /** Subscribe on this and every later connection. Returns the request's id, which `resolve` and `fail` repeat. */
  subscribe(target, nowMs) {
    if (this.#rejection({}) === null) {
      this.#interest.add(target);
    }
    return this.#ask({}, { target }, nowMs);
  }

  /** Unsubscribe. Without a connection this settles at once, since no later connection restores the channel. */
  unsubscribe(target, nowMs) {
    this.#interest.remove(target);
    for (const request of this.#requests.all()) {
      if (request.target !== null && this.#interest.remaining(request.target) === null) {
        this.#fail(request, { code: 'UNSUBSCRIBED', message: 'unsubscribed before the server answered' });
      }
    }
    if (this.#link.isAuthSent) {
      this.#interest.unsubscribing(target);
      return this.#ask({ type: 'unsubscribe', ...target }, {}, nowMs);
    }
    const id = this.#requests.newId();
    this.#actions.push({ do: 'resolve', id, data: target });
    return id;
  }

  /** Send a message or a change of one, in order by `orderingKey`, and resend it until it is acknowledged. */
  sendMessage(frame, orderingKey, nowMs) {
    return this.#ask(frame, { orderingKey, deadlineMs: this.#deadlineOf(nowMs) }, nowMs);
  }

  /** Send any other frame that the server answers. */
  request(frame, nowMs) {
    return this.#ask(frame, { deadlineMs: this.#deadlineOf(nowMs) }, nowMs);
  }

  /** Send a frame that loses its value with time. Returns false, without sending, if there is no connection. */
  sendNow(frame) {
    if (this.#link.isOpen) {
      this.#link.send(frame);
    }
    return this.#link.isOpen;
  }

  // Reports of the shell ---------------------------------------------------------------------------------------------

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
      this.#fail(request, { code: 'TIMEOUT', message: 'the server did not answer in time', retryable: true });
    }
    this.#link.tick(nowMs);
    this.#sendDue(nowMs);
  }

  // Calls of the link ------------------------------------------------------------------------------------------------

  #restore() {
    const pending = this.#requests.all().filter(({ target }) => target !== null);
    const targets = this.#interest.targetsExcept(pending.map(({ target }) => target));
    const restored = targets.map((target) => this.#requests.add({}, { target, isInternal: true }));
    return [...pending, ...restored].map((request) => this.#subscribeFrame(request));
  }

  /** Drop internal requests and settle pending unsubscriptions; both belonged to the lost connection. */
  #disconnected() {
    this.#interest.disconnected();
    for (const request of this.#requests.all()) {
      const { type, id, ...target } = request.frame;
      if (request.isInternal) {
        this.#requests.remove(request.id);
      } else if (type === 'unsubscribe') {
        this.#requests.remove(request.id);
        this.#actions.push({ do: 'resolve', id, data: target });
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
      const message = `${this.#settings.pendingMax} requests are already pending`;
      return { code: 'QUEUE_FULL', message, retryable: true };
    }
    if (sizeOf(frame) + ID_MAX_BYTES > maxMessageBytes) {
      return { code: 'TOO_LARGE', message: `larger than ${maxMessageBytes} bytes` };
    }
    return null;
  }

  /** Send the requests that are due. */
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
    this.#sent(request).position = { since: frame.since ?? null, sinceRev: frame.sinceRev ?? null };
    return frame;
  }

  #deadlineOf(nowMs) {
    return nowMs + (this.#settings.requestTimeoutMs || Infinity);
  }

  // Frames -----------------------------------------------------------------------------------------------------------

  #process(frame, nowMs) {
    const { type, data } = frame;
    const fresh = this.#interest.accept(type, data);
    if (fresh === null) {
      this.#link.stats.repeats += 1;
      return;
    }
    this.#reportMissed(fresh.missed);
    if (type === 'unsubscribed') {
      this.#interest.unsubscribed(data);
    }
    if (type === 'chatroom:deleted') {
      this.#interest.remove({ channel: 'chatroom', chatroomId: data.chatroomId });
    } else if (type === 'unsubscribed' && frame.id === undefined) {
      this.#interest.remove(data); // the server ended the subscription by itself
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
      this.#reportMissed(this.#interest.subscribed(request.target, request.position, data));
    } else if (request.frame.type === 'chat:direct' && type === 'chat:ack') {
      this.#directAcked(request, data);
    }
    if (!request.isInternal) {
      this.#actions.push({ do: 'resolve', id: request.id, data });
    }
  }

  /**
   * Subscribe to an unknown room from just before a message that was sent more than once, to have it replayed. The
   * message may have been delivered to an earlier connection.
   */
  #directAcked(request, data) {
    const isNewRoom = this.#interest.acked(data);
    if (isNewRoom && request.attempts > 1) {
      this.#requests.add({}, { target: { channel: 'chatroom', chatroomId: data.chatroomId }, isInternal: true });
    }
  }

  #rejected(request, data, nowMs) {
    const backoffMs = Math.min(this.#settings.backoffFirstMs * 2 ** request.attempts, RETRY_MAX_MS);
    const delayMs = data.retryAfterMs ?? backoffMs;
    const isTooLate = data.retryAfterMs !== undefined && nowMs + delayMs >= request.deadlineMs;
    if (data.retryable && !isTooLate) {
      const pausesKind = data.code === 'RATE_LIMITED' && delayMs <= PAUSE_MAX_MS;
      this.#requests.retry(request, nowMs + delayMs, pausesKind);
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
