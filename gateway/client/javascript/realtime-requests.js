// Unanswered requests: ordered by key, resent until answered, each with a deadline. Pure. Times are milliseconds of
// one monotonic clock. Used by realtime-core.js.

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

/** One unanswered request. At most one request of each `orderingKey` is in flight, so they stay in order. */
class Request {
  constructor(id, frame, { orderingKey = null, target = null, deadlineMs = Infinity, isInternal = false }) {
    Object.assign(this, { id, frame, orderingKey, target, deadlineMs, isInternal });
    this.position = null; // what the subscribe frame resumes: {since, sinceRev}
    this.sentOn = 0; // connection number; 0: unsent
    this.attempts = 0;
    this.notBeforeMs = 0;
  }

  get isMessage() {
    return this.orderingKey !== null;
  }
}

/** Unanswered requests in the order of the calls, at most `max`; callers check `isFull` before `add`. */
export class Requests {
  #pending = new Map(); // in the order of the calls
  #max;
  #nextId = 1;
  #messagesPausedUntilMs = 0; // end of the server's rate limit

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
    const busy = new Set();
    return this.all().filter((request) => {
      if (request.orderingKey !== null && busy.has(request.orderingKey)) {
        return false;
      }
      busy.add(request.orderingKey);
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

  /** Send a request again, not before `atMs`. A rate limit pauses all messages until then. */
  retry(request, atMs, limitsMessages) {
    request.sentOn = 0;
    if (limitsMessages && request.isMessage) {
      this.#messagesPausedUntilMs = Math.max(this.#messagesPausedUntilMs, atMs);
    } else {
      request.notBeforeMs = atMs;
    }
  }

  #sendableAtMs(request) {
    return request.isMessage ? Math.max(request.notBeforeMs, this.#messagesPausedUntilMs) : request.notBeforeMs;
  }
}
