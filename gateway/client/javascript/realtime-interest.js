// Subscriptions of the application, the position in each ordered channel, and the deduplication of frames. Pure. Used
// by realtime-core.js.

const DIRECT_ROOMS_MAX = 50;

// Types that begin with one of these are the server's own. Every other type with a colon is an event, and one with a
// `seq` comes from the inbox.
const SYSTEM = new Set(['auth', 'chat', 'chatroom', 'market', 'member', 'presence', 'room', 'server', 'subscription']);
const CHANGES = new Set(['chat:updated', 'chat:deleted', 'chat:reaction', 'chat:pinned']);

/**
 * Position in an ordered channel; items up to `position` are repeats, and in a room changes up to `rev`. `head` holds
 * the seq and rev of the room while messages up to that seq are being replayed. `isSubscribed` is false for a room whose messages
 * arrive without a subscription (direct messages). Such rooms are resumed as well, the 50 most recently active ones.
 */
class Cursor {
  constructor(position, isSubscribed, rev = null) {
    Object.assign(this, { position, isSubscribed, rev, head: null });
  }

  /** Return the fields of a subscribe frame that resumes here. Only a rev covers edits and deletions too. */
  fields() {
    return this.rev !== null ? { sinceRev: this.rev } : this.position !== null ? { since: this.position } : {};
  }

  /** Take over `rev` once every message up to `seq` has arrived. */
  noteHead(seq, rev) {
    this.head = { seq, rev };
    this.#reachHead();
  }

  /** Move to `rev`, unless it is missing or messages before it are still to come. */
  noteRev(rev) {
    if (Number.isInteger(rev) && this.head === null) {
      this.rev = Math.max(rev, this.rev ?? 0);
    }
  }

  #reachHead() {
    if (this.head !== null && this.position !== null && this.position >= this.head.seq) {
      const { rev } = this.head;
      this.head = null;
      this.noteRev(rev);
    }
  }

  /** Move to `seq` and return the gap before it, or null if `seq` is a repeat. */
  advance(seq) {
    const before = this.position;
    if (before !== null && seq <= before) {
      return null;
    }
    this.position = seq;
    this.#reachHead();
    return { missed: before !== null && seq > before + 1 ? { since: before, seq: seq - 1 } : null };
  }
}

/** Subscriptions of one client and its position in each. A target is the options of a subscribe call and `channel`. */
export class Interest {
  #rooms = new Map();
  #inbox = null;
  #symbols = new Map(); // symbol → {maxRate, seq, isConfirmed}
  #others = new Map(); // channels without an order: communities and `activity`
  #unsubscribing = new Set(); // rooms until the server confirms; their messages are dropped

  /** Store a subscription of the application. A known position takes precedence over `since`. */
  add(target) {
    const since = target.since ?? null;
    const rev = target.sinceRev ?? null;
    if (target.channel === 'chatroom') {
      const cursor = this.#rooms.get(target.chatroomId);
      if (cursor === undefined) {
        this.#rooms.set(target.chatroomId, new Cursor(since, true, rev));
      } else {
        cursor.isSubscribed = true;
        if (cursor.position === null && cursor.rev === null) {
          Object.assign(cursor, { position: since, rev });
        }
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

  /** Drop messages of a removed room, and their changes, until `unsubscribed` or `disconnected`. */
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

  /** Return the subscribe frame of `target`, which resumes at its position if that is known. */
  frameOf(target) {
    const { since: _, sinceRev: __, ...frame } = target;
    return { type: 'subscribe', ...frame, ...this.#cursorOf(target)?.fields() };
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
   * Process the server's confirmation of a subscribe frame for `target`, which held `since`, `sinceRev` or neither
   * (null). Returns the gap that the server cannot replay, or null.
   */
  subscribed(target, { since, sinceRev }, data) {
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
    const before = cursor.position;
    if (since === null && sinceRev === null) {
      cursor.position ??= data.seq;
      cursor.noteRev(data.rev);
      return null;
    }
    if (data.recovered) { // replayed frames advance the cursor one by one
      if (since !== null) {
        cursor.noteHead(data.seq, data.rev);
      }
      return null;
    }
    Object.assign(cursor, { position: data.seq, rev: data.rev ?? null, head: null });
    const { channel, chatroomId } = target;
    const room = chatroomId === undefined ? {} : { chatroomId };
    return { channel, ...room, since: before ?? data.seq, seq: data.seq };
  }

  /** Return null if the application has already seen the frame, else `{missed}`: the gap before it, or null. */
  accept(type, data) {
    if (type === 'market:price') {
      return this.#acceptPrice(data);
    }
    if (CHANGES.has(type)) {
      return this.#acceptChange(data);
    }
    if (!Number.isInteger(data?.seq)) {
      return { missed: null };
    }
    if (type === 'chat:message') {
      return this.#acceptMessage(data);
    }
    if (this.#inbox === null || !type.includes(':') || SYSTEM.has(type.split(':', 1)[0])) {
      return { missed: null };
    }
    return named(this.#inbox.cursor.advance(data.seq), { channel: 'notifications' });
  }

  /**
   * Track the room of an acknowledged direct message. Returns whether the room was unknown. An unknown room starts just
   * before the message, so that a resume fetches it if it does not arrive live.
   */
  acked(data) {
    const isNew = !this.#rooms.has(data.chatroomId);
    const cursor = this.#track(data.chatroomId, data.seq);
    if (isNew && Number.isInteger(data.rev)) {
      cursor.rev = data.rev - 1;
    }
    return isNew;
  }

  #acceptMessage({ chatroomId, seq, rev }) {
    if (this.#hasLeft(chatroomId)) {
      return null;
    }
    const cursor = this.#track(chatroomId, seq);
    const fresh = cursor.advance(seq);
    if (fresh !== null) {
      cursor.noteRev(rev);
    }
    return named(fresh, { channel: 'chatroom', chatroomId });
  }

  #acceptChange({ chatroomId, rev }) {
    if (this.#hasLeft(chatroomId)) {
      return null;
    }
    const cursor = this.#rooms.get(chatroomId);
    if (cursor !== undefined) {
      if (cursor.rev !== null && rev <= cursor.rev) {
        return null;
      }
      cursor.noteRev(rev);
    }
    return { missed: null };
  }

  #hasLeft(chatroomId) {
    return this.#unsubscribing.has(chatroomId) && !this.#rooms.has(chatroomId);
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
const keyOf = ({ since, sinceRev, id, ...target }) => JSON.stringify(Object.entries(target).sort());

const named = (fresh, where) => (fresh?.missed ? { missed: { ...where, ...fresh.missed } } : fresh);
