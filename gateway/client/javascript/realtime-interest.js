// Subscriptions of the application, the position in each ordered channel, and the deduplication of frames. Pure. Used
// by realtime-core.js.

const DIRECT_ROOMS_MAX = 50;

// Frames whose `seq` does not number the inbox. Every other event with a `seq` comes from the inbox.
const OUTSIDE_INBOX = new Set([
  'chat:message', 'chat:ack', 'chat:read', 'chat:typing', 'market:price', 'subscribed', 'unsubscribed',
]);

/**
 * Position in an ordered channel; items up to `position` are repeats. `isSubscribed` is false for a room whose messages
 * arrive without a subscription (direct messages). Such rooms are resumed as well, the 50 most recently active ones.
 */
class Cursor {
  constructor(position, isSubscribed) {
    this.position = position;
    this.isSubscribed = isSubscribed;
  }

  /** Move to `seq` and return the gap before it, or null if `seq` is a repeat. */
  advance(seq) {
    const before = this.position;
    if (before !== null && seq <= before) {
      return null;
    }
    this.position = seq;
    return { missed: before !== null && seq > before + 1 ? { since: before, seq: seq - 1 } : null };
  }
}

/** Subscriptions of one client and its position in each. A target is the options of a subscribe call and `channel`. */
export class Interest {
  #rooms = new Map();
  #inbox = null;
  #symbols = new Map(); // symbol → {maxRate, seq, isConfirmed}
  #others = new Map(); // channels without an order: communities
  #unsubscribing = new Set(); // rooms until the server confirms; their messages are dropped

  /** Store a subscription of the application. A known position takes precedence over `since`. */
  add(target) {
    const since = target.since ?? null;
    if (target.channel === 'chatroom') {
      const cursor = this.#rooms.get(target.chatroomId);
      if (cursor === undefined) {
        this.#rooms.set(target.chatroomId, new Cursor(since, true));
      } else {
        cursor.isSubscribed = true;
        cursor.position ??= since;
      }
    } else if (target.channel === 'notifications') {
      this.#inbox ??= { cursor: new Cursor(since, true), userId: target.userId };
    } else if (target.channel === 'market') {
      for (const symbol of target.symbols ?? []) {
        const isConfirmed = this.#symbols.get(symbol)?.isConfirmed ?? false;
        this.#symbols.set(symbol, { maxRate: target.maxRate, seq: null, isConfirmed }); // the server resends the price
      }
    } else {
      this.#others.set(keyOf(target), target);
    }
  }

  /** Drop a subscription that the application or the server has ended. */
  remove(target) {
    if (target.channel === 'chatroom') {
      this.#rooms.delete(target.chatroomId);
    } else if (target.channel === 'notifications') {
      this.#inbox = null;
    } else if (target.channel === 'market') {
      (target.symbols ?? []).forEach((symbol) => this.#symbols.delete(symbol));
    } else {
      this.#others.delete(keyOf(target));
    }
  }

  /** Drop messages of a removed room until `unsubscribed` or `disconnected`. */
  unsubscribing(target) {
    if (target.channel === 'chatroom') {
      this.#unsubscribing.add(target.chatroomId);
    }
  }

  unsubscribed(target) {
    this.#unsubscribing.delete(target.chatroomId);
  }

  disconnected() {
    this.#unsubscribing.clear();
  }

  /** Drop a subscription that the server rejected. Symbols that it had confirmed before stay. */
  rejected(target) {
    if (target.channel === 'market') {
      const symbols = (target.symbols ?? []).filter((symbol) => !this.#symbols.get(symbol)?.isConfirmed);
      this.remove({ channel: 'market', symbols });
    } else {
      this.remove(target);
    }
  }

  /** Return the part of `target` that is still subscribed, or null. */
  remaining(target) {
    if (target.channel === 'market') {
      const symbols = (target.symbols ?? []).filter((symbol) => this.#symbols.has(symbol));
      return symbols.length === 0 && target.symbols?.length > 0 ? null : { ...target, symbols };
    }
    const isKept = { chatroom: this.#rooms.has(target.chatroomId), notifications: this.#inbox !== null };
    return isKept[target.channel] ?? this.#others.has(keyOf(target)) ? target : null;
  }

  /** Return the subscribe frame of `target`, with `since` if its position is known. */
  frameOf(target) {
    const { since: _, ...frame } = target;
    const since = this.#cursorOf(target)?.position ?? null;
    return since === null ? { type: 'subscribe', ...frame } : { type: 'subscribe', ...frame, since };
  }

  /** Return the subscriptions to restore on a new connection, except those that a pending request covers. */
  targetsExcept(requested) {
    const isRequested = new Set(requested.map(keyOf));
    const requestedSymbols = new Set(requested.flatMap(({ symbols }) => symbols ?? []));
    const targets = [...this.#others.values()];
    if (this.#inbox !== null) {
      const { userId } = this.#inbox;
      targets.push(userId === undefined ? { channel: 'notifications' } : { channel: 'notifications', userId });
    }
    for (const chatroomId of this.#rooms.keys()) {
      targets.push({ channel: 'chatroom', chatroomId });
    }
    const byRate = new Map();
    for (const [symbol, { maxRate }] of this.#symbols) {
      if (!requestedSymbols.has(symbol)) {
        byRate.set(maxRate, [...(byRate.get(maxRate) ?? []), symbol]);
      }
    }
    for (const [maxRate, symbols] of byRate) {
      targets.push({ channel: 'market', symbols, ...(maxRate === undefined ? {} : { maxRate }) });
    }
    return targets.filter((target) => !isRequested.has(keyOf(target)));
  }

  /**
   * Process the server's confirmation of a subscribe frame for `target` with `since` (or null). Returns the gap that
   * the server cannot replay, or null.
   */
  subscribed(target, since, data) {
    if (target.channel === 'market') {
      this.remove({ channel: 'market', symbols: data.unknown ?? [] });
      for (const symbol of target.symbols) {
        Object.assign(this.#symbols.get(symbol) ?? {}, { isConfirmed: true });
      }
      return null;
    }
    const cursor = this.#cursorOf(target);
    if (cursor === undefined) {
      return null;
    }
    if (since === null) {
      cursor.position ??= data.seq;
      return null;
    }
    if (data.recovered) {
      return null; // the replayed messages advance the cursor one by one
    }
    cursor.position = data.seq;
    const { chatroomId } = target;
    return { channel: target.channel, ...(chatroomId === undefined ? {} : { chatroomId }), since, seq: data.seq };
  }

  /** Return null if the application has already seen the frame, else `{missed}`: the gap before it, or null. */
  accept(type, data) {
    if (type === 'market:price') {
      return this.#acceptPrice(data);
    }
    if (!Number.isInteger(data?.seq)) {
      return { missed: null };
    }
    if (type === 'chat:message') {
      if (this.#unsubscribing.has(data.chatroomId) && !this.#rooms.has(data.chatroomId)) {
        return null;
      }
      const fresh = this.#track(data.chatroomId, data.seq).advance(data.seq);
      return named(fresh, { channel: 'chatroom', chatroomId: data.chatroomId });
    }
    if (this.#inbox === null || OUTSIDE_INBOX.has(type)) {
      return { missed: null };
    }
    return named(this.#inbox.cursor.advance(data.seq), { channel: 'notifications' });
  }

  /**
   * Track the room of an acknowledged direct message, from just before it: the message itself may not arrive. Returns
   * whether the room was unknown.
   */
  acked(data) {
    const isNew = !this.#rooms.has(data.chatroomId);
    this.#track(data.chatroomId, data.seq);
    return isNew;
  }

  #acceptPrice(data) {
    const quote = this.#symbols.get(data.symbol);
    if (quote === undefined) {
      return { missed: null };
    }
    if (quote.seq !== null && (data.seq < quote.seq || (data.seq === quote.seq && data.stale === undefined))) {
      return null;
    }
    quote.seq = data.seq;
    return { missed: null };
  }

  #cursorOf(target) {
    return target.channel === 'chatroom' ? this.#rooms.get(target.chatroomId)
      : target.channel === 'notifications' ? this.#inbox?.cursor
      : undefined;
  }

  #track(chatroomId, seq) {
    const known = this.#rooms.get(chatroomId);
    const cursor = known ?? new Cursor(seq - 1, false);
    if (!cursor.isSubscribed) { // keep the rooms in order of activity
      this.#rooms.delete(chatroomId);
      this.#rooms.set(chatroomId, cursor);
    }
    if (known === undefined) {
      const direct = [...this.#rooms].filter(([, { isSubscribed }]) => !isSubscribed);
      direct.slice(0, -DIRECT_ROOMS_MAX).forEach(([id]) => this.#rooms.delete(id));
    }
    return cursor;
  }
}

/** Return a key that is equal for subscriptions of the same channel. */
const keyOf = ({ since, id, ...target }) => JSON.stringify(Object.entries(target).sort());

const named = (fresh, where) => (fresh?.missed ? { missed: { ...where, ...fresh.missed } } : fresh);
