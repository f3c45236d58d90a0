// What the application listens to, how far it has come in each channel, and so what it has had already.
// Pure: no clock, no socket, no timer. Used by realtime-core.js.

const DIRECT_ROOMS_MAX = 50;

// Frames whose `seq` is not that of the inbox; any other event with a `seq` is from there.
const OUTSIDE_INBOX = new Set([
  'chat:message', 'chat:ack', 'chat:read', 'chat:typing', 'market:price', 'subscribed', 'unsubscribed',
]);

/**
 * A cursor in an ordered channel: what came up to `position` is not shown again. `isSubscribed` is false for rooms that
 * come without a subscription (direct messages): they are resumed like the others, the 50 heard last.
 */
class Cursor {
  constructor(position, isSubscribed) {
    this.position = position;
    this.isSubscribed = isSubscribed;
  }

  /** Returns what is missed before `seq`, or null if `seq` is a repeat; moves on. */
  advance(seq) {
    const before = this.position;
    if (before !== null && seq <= before) {
      return null;
    }
    this.position = seq;
    return { missed: before !== null && seq > before + 1 ? { since: before, seq: seq - 1 } : null };
  }
}

/** All that one client listens to. A target is the options of a subscribe call with their `channel`. */
export class Interest {
  #rooms = new Map();
  #inbox = null;
  #symbols = new Map(); // symbol → {maxRate, seq, isConfirmed}
  #others = new Map(); // what has no order: communities
  #unsubscribing = new Set(); // rooms until the server has unsubscribed them: what still comes from there is not shown

  /** The application subscribes: remember it. A cursor that is known already wins over `since`. */
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
        this.#symbols.set(symbol, { maxRate: target.maxRate, seq: null, isConfirmed }); // the latest price comes anew
      }
    } else {
      this.#others.set(keyOf(target), target);
    }
  }

  /** The application unsubscribes, or the server has ended it. */
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

  /** The server is asked to end `target`, forgotten here; `left` when it has, `disconnected` when it need not. */
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

  /** The server refuses to subscribe `target`; symbols that were there before stay. */
  rejected(target) {
    if (target.channel === 'market') {
      const symbols = (target.symbols ?? []).filter((symbol) => !this.#symbols.get(symbol)?.isConfirmed);
      this.remove({ channel: 'market', symbols });
    } else {
      this.remove(target);
    }
  }

  /** What is still wanted of `target`, or null. */
  remaining(target) {
    if (target.channel === 'market') {
      const symbols = (target.symbols ?? []).filter((symbol) => this.#symbols.has(symbol));
      return symbols.length === 0 && target.symbols?.length > 0 ? null : { ...target, symbols };
    }
    const isKept = { chatroom: this.#rooms.has(target.chatroomId), notifications: this.#inbox !== null };
    return isKept[target.channel] ?? this.#others.has(keyOf(target)) ? target : null;
  }

  /** The subscribe frame of `target` as it is to be sent now: with `since` where a cursor is known. */
  frameOf(target) {
    const { since: _, ...frame } = target;
    const since = this.#cursorOf(target)?.position ?? null;
    return since === null ? { type: 'subscribe', ...frame } : { type: 'subscribe', ...frame, since };
  }

  /** Everything that a new connection has to be subscribed to, but for what is asked anyway. */
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
   * The server has subscribed `target`, asked with `since` (or null). Returns what cannot be replayed and is to be
   * read over REST, or null.
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
      return null; // the replay moves the cursor, message by message
    }
    cursor.position = data.seq;
    const { chatroomId } = target;
    return { channel: target.channel, ...(chatroomId === undefined ? {} : { chatroomId }), since, seq: data.seq };
  }

  /** Returns null if the application has had the frame already, else `{missed}`: what is missing before it, or null. */
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
      const verdict = this.#track(data.chatroomId, data.seq).advance(data.seq);
      return named(verdict, { channel: 'chatroom', chatroomId: data.chatroomId });
    }
    if (this.#inbox === null || OUTSIDE_INBOX.has(type)) {
      return { missed: null };
    }
    return named(this.#inbox.cursor.advance(data.seq), { channel: 'notifications' });
  }

  /**
   * A direct message is acked: its room is resumed from before it, should the message itself not come. Returns whether
   * nothing had come from there yet.
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
    if (!cursor.isSubscribed) { // the one heard last is at the end
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

/** Equal for subscribe options that mean the same channel. */
const keyOf = ({ since, id, ...target }) => JSON.stringify(Object.entries(target).sort());

const named = (verdict, where) => (verdict?.missed ? { missed: { ...where, ...verdict.missed } } : verdict);
