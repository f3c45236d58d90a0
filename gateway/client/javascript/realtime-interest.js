// What the application listens to, how far it has come in each channel, and so what it has had already.
// Pure: no clock, no socket, no timer. Used by realtime-core.js.

const DIRECT_ROOMS_MAX = 50;

// Frames whose `seq` is not that of the inbox; any other event with a `seq` is from there.
const NOT_OF_THE_INBOX = new Set([
  'chat:message', 'chat:ack', 'chat:read', 'chat:typing', 'market:price', 'subscribed', 'unsubscribed',
]);

/**
 * A place in an ordered channel: what came up to `position` is not shown again. `isWanted` is false for rooms that
 * come without a subscription (direct messages): they are resumed like the others, the 50 heard last.
 */
class Place {
  constructor(position, isWanted) {
    this.position = position;
    this.isWanted = isWanted;
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
  #symbols = new Map(); // symbol → {maxRate, seq, isThere}
  #others = new Map(); // what has no order: communities
  #leaving = new Set(); // rooms until the server has unsubscribed them: what still comes from there is not shown

  /** The application subscribes: remember it. A place that is known already wins over `since`. */
  want(target) {
    const since = target.since ?? null;
    if (target.channel === 'chatroom') {
      const place = this.#rooms.get(target.chatroomId);
      if (place === undefined) {
        this.#rooms.set(target.chatroomId, new Place(since, true));
      } else {
        place.isWanted = true;
        place.position ??= since;
      }
    } else if (target.channel === 'notifications') {
      this.#inbox ??= { place: new Place(since, true), userId: target.userId };
    } else if (target.channel === 'market') {
      for (const symbol of target.symbols ?? []) {
        const isThere = this.#symbols.get(symbol)?.isThere ?? false;
        this.#symbols.set(symbol, { maxRate: target.maxRate, seq: null, isThere }); // the latest price comes anew
      }
    } else {
      this.#others.set(keyOf(target), target);
    }
  }

  /** The application unsubscribes, or the server has ended it. */
  forget(target) {
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
  leave(target) {
    if (target.channel === 'chatroom') {
      this.#leaving.add(target.chatroomId);
    }
  }

  left(target) {
    this.#leaving.delete(target.chatroomId);
  }

  disconnected() {
    this.#leaving.clear();
  }

  /** The server refuses to subscribe `target`; symbols that were there before stay. */
  refused(target) {
    if (target.channel === 'market') {
      const symbols = (target.symbols ?? []).filter((symbol) => !this.#symbols.get(symbol)?.isThere);
      this.forget({ channel: 'market', symbols });
    } else {
      this.forget(target);
    }
  }

  /** What is still wanted of `target`, or null. */
  remaining(target) {
    if (target.channel === 'market') {
      const symbols = (target.symbols ?? []).filter((symbol) => this.#symbols.has(symbol));
      return symbols.length === 0 && target.symbols?.length > 0 ? null : { ...target, symbols };
    }
    const isThere = { chatroom: this.#rooms.has(target.chatroomId), notifications: this.#inbox !== null };
    return isThere[target.channel] ?? this.#others.has(keyOf(target)) ? target : null;
  }

  /** The subscribe frame of `target` as it is to be sent now: with `since` where a place is known. */
  frameOf(target) {
    const { since: _, ...frame } = target;
    const since = this.#placeOf(target)?.position ?? null;
    return since === null ? { type: 'subscribe', ...frame } : { type: 'subscribe', ...frame, since };
  }

  /** Everything that a new connection has to be subscribed to, but for what is asked anyway. */
  targetsBut(asked) {
    const isAsked = new Set(asked.map(keyOf));
    const symbolsAsked = new Set(asked.flatMap(({ symbols }) => symbols ?? []));
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
      if (!symbolsAsked.has(symbol)) {
        byRate.set(maxRate, [...(byRate.get(maxRate) ?? []), symbol]);
      }
    }
    for (const [maxRate, symbols] of byRate) {
      targets.push({ channel: 'market', symbols, ...(maxRate === undefined ? {} : { maxRate }) });
    }
    return targets.filter((target) => !isAsked.has(keyOf(target)));
  }

  /**
   * The server has subscribed `target`, asked with `since` (or null). Returns what cannot be replayed and is to be
   * read over REST, or null.
   */
  subscribed(target, since, data) {
    if (target.channel === 'market') {
      this.forget({ channel: 'market', symbols: data.unknown ?? [] });
      for (const symbol of target.symbols) {
        Object.assign(this.#symbols.get(symbol) ?? {}, { isThere: true });
      }
      return null;
    }
    const place = this.#placeOf(target);
    if (place === undefined) {
      return null;
    }
    if (since === null) {
      place.position ??= data.seq;
      return null;
    }
    if (data.recovered) {
      return null; // the replay moves the place, message by message
    }
    place.position = data.seq;
    const { chatroomId } = target;
    return { channel: target.channel, ...(chatroomId === undefined ? {} : { chatroomId }), since, seq: data.seq };
  }

  /** Returns null if the application has had the frame already, else `{missed}`: what is missing before it, or null. */
  take(type, data) {
    if (type === 'market:price') {
      return this.#takePrice(data);
    }
    if (!Number.isInteger(data?.seq)) {
      return { missed: null };
    }
    if (type === 'chat:message') {
      if (this.#leaving.has(data.chatroomId) && !this.#rooms.has(data.chatroomId)) {
        return null;
      }
      const taken = this.#roomOf(data.chatroomId, data.seq).advance(data.seq);
      return named(taken, { channel: 'chatroom', chatroomId: data.chatroomId });
    }
    if (this.#inbox === null || NOT_OF_THE_INBOX.has(type)) {
      return { missed: null };
    }
    return named(this.#inbox.place.advance(data.seq), { channel: 'notifications' });
  }

  /**
   * A direct message is acked: its room is resumed from before it, should the message itself not come. Returns whether
   * nothing had come from there yet.
   */
  acked(data) {
    const isNew = !this.#rooms.has(data.chatroomId);
    this.#roomOf(data.chatroomId, data.seq);
    return isNew;
  }

  #takePrice(data) {
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

  #placeOf(target) {
    return target.channel === 'chatroom' ? this.#rooms.get(target.chatroomId)
      : target.channel === 'notifications' ? this.#inbox?.place
      : undefined;
  }

  #roomOf(chatroomId, seq) {
    const known = this.#rooms.get(chatroomId);
    const place = known ?? new Place(seq - 1, false);
    if (!place.isWanted) { // the one heard last is at the end
      this.#rooms.delete(chatroomId);
      this.#rooms.set(chatroomId, place);
    }
    if (known === undefined) {
      const direct = [...this.#rooms].filter(([, { isWanted }]) => !isWanted);
      direct.slice(0, -DIRECT_ROOMS_MAX).forEach(([id]) => this.#rooms.delete(id));
    }
    return place;
  }
}

/** Equal for subscribe options that mean the same channel. */
const keyOf = ({ since, id, ...target }) => JSON.stringify(Object.entries(target).sort());

const named = (taken, where) => (taken?.missed ? { missed: { ...where, ...taken.missed } } : taken);
