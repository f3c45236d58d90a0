// What was asked of the server and is not answered yet: in order, resent until it is, each with a deadline.
// Pure: times come in as milliseconds of one monotonic clock. Used by realtime-core.js.

/** Why something that was asked has failed: `code` of the protocol, or one of the client's own. */
export class RealtimeError extends Error {
  /**
   * `retryable`: asking again may work. `details`: which fields are wrong. The client's own codes: `CLOSED` (the client
   * was closed, or may not connect any more: then `closeCode` says why), `TIMEOUT` (no answer in time; it may have
   * taken effect: repeat with the same clientMessageId), `QUEUE_FULL`, `UNSUBSCRIBED`.
   */
  constructor({ code, message, retryable = false, retryAfterMs, request, details, closeCode }) {
    super(message);
    this.name = 'RealtimeError';
    Object.assign(this, { code, retryable, retryAfterMs, request, details, closeCode });
  }
}

/** One request. `lane`: of those with the same lane only one is under way, so that they are carried out in order. */
class Request {
  constructor(id, frame, { lane = null, target = null, deadlineMs = Infinity, isInternal = false }) {
    Object.assign(this, { id, frame, lane, target, deadlineMs, isInternal });
    this.since = null; // what was sent with the subscribe frame
    this.sentOn = 0; // the number of the connection; 0 is none
    this.attempts = 0;
    this.notBeforeMs = 0;
  }

  get isMessage() {
    return this.lane !== null;
  }
}

/** At most `max` of the application's at a time: who adds looks at `isFull` first. */
export class Requests {
  #pending = new Map(); // in the order asked
  #max;
  #nextId = 1;
  #messagesPausedUntilMs = 0; // messages; the server said when

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

  /** An id for what is not kept here. */
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

  /** What may be sent now on this connection, in order. */
  due(connection, nowMs) {
    const busy = new Set();
    return this.all().filter((request) => {
      if (request.lane !== null && busy.has(request.lane)) {
        return false;
      }
      busy.add(request.lane);
      return request.sentOn !== connection && this.#sendableAtMs(request) <= nowMs;
    });
  }

  /** When, after `nowMs`, time alone brings something: `connection` is 0 when nothing can be sent. */
  nextMs(connection, nowMs) {
    let next = Infinity;
    for (const request of this.#pending.values()) {
      const goes = connection === 0 || request.sentOn === connection ? 0 : this.#sendableAtMs(request);
      next = Math.min(next, request.deadlineMs, goes > nowMs ? goes : Infinity);
    }
    return next;
  }

  /** Take out what has waited past its deadline. */
  expired(nowMs) {
    const late = this.all().filter((request) => request.deadlineMs <= nowMs);
    late.forEach((request) => this.remove(request.id));
    return late;
  }

  /** Send it once more, not before `atMs`; so for all messages when the server limits them. */
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
