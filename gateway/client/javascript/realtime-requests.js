// Unanswered requests: ordered by key, resent until answered; messages and other requests with a deadline, subscribes
// and unsubscribes without. Pure. Times are milliseconds of one monotonic clock. Used by realtime-core.js.

/** Failure of a request. `code` is a code of the protocol, or one that the client adds. */
export class RealtimeError extends Error {
  /**
   * `retryable` states whether another attempt can succeed; `details` names the invalid fields. The client's own codes:
   * `CLOSED` (the client is closed; `closeCode` states the reason if the server refuses further connections), `TIMEOUT`
   * (no answer in time; the request may have taken effect, so repeat it with the same clientMessageId), `QUEUE_FULL`,
   * `UNSUBSCRIBED`.
   */
  constructor({ code, message, retryable = false, retryAfterMs, request, details, closeCode }) {
    super(message);
    this.name = 'RealtimeError';
    Object.assign(this, { code, retryable, retryAfterMs, request, details, closeCode });
  }
}

/** The requests that the server counts towards one rate: new messages, or changes of stored ones. */
const KINDS = ['messages', 'changes'];
const MESSAGES = ['chat:send', 'chat:direct'];

/**
 * One unanswered request. At most one request of each `orderingKey` is in flight, so they stay in order. While a rate
 * limit pauses one kind (messages or changes), requests of the other kind do not wait: they overtake the paused ones.
 */
class Request {
  constructor(id, frame, { orderingKey = null, target = null, deadlineMs = Infinity, isInternal = false }) {
    Object.assign(this, { id, frame, orderingKey, target, deadlineMs, isInternal });
    this.position = null; // what the subscribe frame resumes: {since, sinceRev}
    this.sentOn = 0; // connection number; 0: unsent
    this.attempts = 0;
    this.notBeforeMs = 0;
  }

  /** Return the rate that the server counts the request towards; null for a request without an ordering key. */
  get rateKind() {
    if (this.orderingKey === null) {
      return null;
    }
    return MESSAGES.includes(this.frame.type) ? 'messages' : 'changes';
  }
}

/** Unanswered requests in the order of the calls, at most `max`; callers check `isFull` before `add`. */
export class Requests {
  #pending = new Map(); // in the order of the calls
  #max;
  #nextId = 1;
  #pausedUntilMs = { messages: 0, changes: 0 }; // ends of the server's rate limits

  constructor(max) {
    this.#max = max;
  }

  get isFull() {
    return this.#pending.size >= this.#max;
  }

  add(frame, options) {
    const id = this.newId();
    const request = new Request(id, { ...frame, id }, options);
    this.#pending.set(request.id, request);
    return request;
  }

  /** Return an id for a request that is not stored here. */
  newId() {
    return this.#nextId++;
  }

  get(id) {
    return this.#pending.get(id);
  }

  remove(id) {
    this.#pending.delete(id);
  }

  all() {
    return [...this.#pending.values()];
  }

  /** Return the requests to send on `connection` now, in order. */
  due(connection, nowMs) {
    const busy = { messages: new Set(), changes: new Set() };
    return this.all().filter((request) => {
      const { orderingKey, rateKind } = request;
      if (rateKind !== null) {
        if (busy[rateKind].has(orderingKey)) {
          return false;
        }
        const heldUp = this.#pausedMs(request) > nowMs ? [rateKind] : KINDS;
        heldUp.forEach((kind) => busy[kind].add(orderingKey));
      }
      return request.sentOn !== connection && this.#sendableAtMs(request) <= nowMs;
    });
  }

  /** Return the time after `nowMs` at which a request expires or becomes sendable; `connection` is 0 while offline. */
  nextMs(connection, nowMs) {
    let next = Infinity;
    for (const request of this.#pending.values()) {
      const goes = connection === 0 || request.sentOn === connection ? 0 : this.#sendableAtMs(request);
      next = Math.min(next, request.deadlineMs, goes > nowMs ? goes : Infinity);
    }
    return next;
  }

  /** Remove and return the requests whose deadline has passed. */
  expired(nowMs) {
    const late = this.all().filter((request) => request.deadlineMs <= nowMs);
    late.forEach((request) => this.remove(request.id));
    return late;
  }

  /** Send a request again, not before `atMs`. With `pausesKind`, all requests of its kind wait until then. */
  retry(request, atMs, pausesKind) {
    const kind = request.rateKind;
    request.sentOn = 0;
    if (pausesKind && kind !== null) {
      this.#pausedUntilMs[kind] = Math.max(this.#pausedUntilMs[kind], atMs);
    } else {
      request.notBeforeMs = atMs;
    }
  }

  #pausedMs(request) {
    return request.rateKind === null ? 0 : this.#pausedUntilMs[request.rateKind];
  }

  #sendableAtMs(request) {
    return Math.max(request.notBeforeMs, this.#pausedMs(request));
  }
}
