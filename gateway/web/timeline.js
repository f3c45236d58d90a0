/**
 * Messages of one room in the order of `seq`, with pending messages at the end. While it is detached it shows a part of
 * the history that does not reach the newest message.
 */

import { Observable } from './changes.js';
import { dayOf } from './format.js';
import { changedBy, excerptOf, quoteAfter } from './message_model.js';

export const PAGE = 50;
const KEPT_MAX = 600; // in the DOM; older messages are loaded again on scrolling
const TOGETHER_MS = 5 * 60_000; // messages of one user within this time share a heading
const RECENT_MAX = 500; // changes that pages under way may lack; beyond that, the oldest are forgotten

export class Timeline extends Observable {
  #messages = []; // in order of seq, without repeats
  #pending = new Map(); // clientMessageId -> {text, extras, state, atMs, reason}
  #recent = []; // the last changes, oldest first
  #pageRev = 0; // highest `changedRev` in a page from the server
  isLoaded = false;
  isDetached = false;
  /** The last entry of the room's log that has arrived live. */
  rev = 0;
  /** Last seq that was read when the room was opened; null if nothing was unread. */
  dividerSeq = null;

  /** `me` is the user whose reactions are marked. */
  constructor(me = null) {
    super();
    this.me = me;
  }

  get firstSeq() {
    return this.#messages[0]?.seq ?? null;
  }

  get lastSeq() {
    return this.#messages.at(-1)?.seq ?? 0;
  }

  /** Return whether older history exists: seqs count from 1, without gaps. */
  get hasOlder() {
    return this.firstSeq > 1;
  }

  /** Return the seq up to which no message is missing. */
  get wholeThroughSeq() {
    let seq = this.firstSeq ?? 0;
    for (const message of this.#messages) {
      if (message.seq > seq + 1) break;
      seq = message.seq;
    }
    return seq;
  }

  get newest() {
    return this.#messages.at(-1) ?? null;
  }

  /** Return a rev such that the loaded messages include every change up to it. */
  get wholeThroughRev() {
    return Math.max(this.rev, this.#pageRev);
  }

  /** Return the seq of the last message of a user at or before `seq`, or null. */
  lastOf(userId, seq) {
    return this.#messages.findLast((message) => message.userId === userId && message.seq <= seq)?.seq ?? null;
  }

  get length() {
    return this.#messages.length;
  }

  /** Return the loaded message with this seq, or null. */
  at(seq) {
    return this.#messages.find((message) => message.seq === seq) ?? null;
  }

  /** Return a loaded message by its id, or null. */
  get(messageId) {
    return this.#messages.find(({ id }) => id === messageId) ?? null;
  }

  /** Return the newest own message that is not a tombstone, or null. */
  lastOwn() {
    return this.#messages.findLast(({ userId, deletedAtMs }) => userId === this.me && !deletedAtMs) ?? null;
  }

  /** Add a page of history, in any order, which was requested when `asOfRev` was the last entry to have arrived. */
  addPage(messages, asOfRev = 0) {
    for (const message of messages) {
      this.#pageRev = Math.max(this.#pageRev, message.changedRev ?? 0);
      this.#insert(this.upToDate(message, asOfRev), true);
    }
    this.isLoaded = true;
    this.changed();
  }

  /**
   * Show a page: with the loaded messages if no message is missing between the two, otherwise instead of them.
   * `headSeq` is that of the room's last message.
   */
  show(messages, asOfRev, headSeq) {
    const newestSeq = Math.max(0, ...messages.map(({ seq }) => seq));
    const joins = this.isLoaded && !this.isDetached && newestSeq >= this.firstSeq - 1;
    if (!joins) {
      this.#messages = [];
      this.isDetached = newestSeq < headSeq;
    }
    this.addPage(messages, asOfRev);
  }

  /** Note that the room's last message is loaded. */
  attach() {
    this.isDetached = false;
    this.changed();
  }

  /** Add a message. Returns whether messages before it are missing; the caller then loads them. */
  add(message) {
    this.rev = Math.max(this.rev, message.changedRev ?? 0);
    if (this.isDetached) {
      this.#pending.delete(message.clientMessageId);
      this.changed();
      return false;
    }
    const missing = this.isLoaded && this.#messages.length > 0 && message.seq > this.lastSeq + 1;
    const fresh = this.#insert(message, false);
    if (fresh) this.changed();
    return missing;
  }

  /** Process a change of the log, `{type, data}`. Repeated changes have no effect. */
  change(change) {
    this.rev = Math.max(this.rev, change.data.rev);
    this.#recent.push(change);
    if (this.#recent.length > RECENT_MAX) this.#recent.shift();
    const before = this.#messages;
    this.#messages = before.map((message) => changedBy(message, change, this.me));
    const quotes = this.#changeQuotes(change);
    if (quotes || this.#messages.some((message, at) => message !== before[at])) this.changed();
  }

  /** Change the quotes in messages that are not stored yet. Returns whether any has changed. */
  #changeQuotes(change) {
    let changed = false;
    for (const pending of this.#pending.values()) {
      const { quote } = pending.extras;
      const after = quote && quoteAfter(quote, change);
      if (after === quote) continue;
      pending.extras = { ...pending.extras, quote: after };
      changed = true;
    }
    return changed;
  }

  /** Return the ids of the messages that unsent messages quote. */
  quotedIds() {
    return [...this.#pending.values()].flatMap(({ extras }) => extras.quote?.messageId ?? []);
  }

  /** Renew the quotes of a reloaded message in unsent messages. */
  requote({ id, text }) {
    for (const pending of this.#pending.values()) {
      const { quote } = pending.extras;
      if (quote?.messageId === id) pending.extras = { ...pending.extras, quote: { ...quote, text: excerptOf(text) } };
    }
    this.changed();
  }

  /** Return a message with the changes that arrived after `asOfRev`, the newest entry when it was requested. */
  upToDate(message, asOfRev) {
    const later = this.#recent.filter(({ data }) => data.rev > asOfRev);
    return later.reduce((known, change) => changedBy(known, change, this.me), message);
  }

  #insert(message, replaces) {
    if (message.clientMessageId) this.#pending.delete(message.clientMessageId);
    let at = this.#messages.length;
    while (at > 0 && this.#messages[at - 1].seq > message.seq) at -= 1;
    const isKnown = at > 0 && this.#messages[at - 1].seq === message.seq;
    if (isKnown && !replaces) return false;
    if (isKnown) this.#messages[at - 1] = message;
    else this.#messages.splice(at, 0, message);
    return true;
  }

  /** Replace a loaded message by the server's answer. */
  replace(message, asOfRev) {
    if (!this.get(message.id)) return;
    this.#insert(this.upToDate(message, asOfRev), true);
    this.changed();
  }

  /** Drop all but the newest messages; call it while no older message is visible. */
  trim() {
    if (this.isDetached) this.restart();
    if (this.#messages.length <= KEPT_MAX) return;
    this.#messages.splice(0, this.#messages.length - KEPT_MAX);
  }

  /** Drop the messages before `seq`: changes of theirs may have been missed. */
  dropBefore(seq) {
    this.#messages = this.#messages.filter((message) => message.seq >= seq);
    this.changed();
  }

  /** Drop everything from the server, before it is loaded again. */
  restart() {
    this.#messages = [];
    this.isLoaded = false;
    this.isDetached = false;
    this.changed();
  }

  /** Add an own message that is being sent, for the first time or again. */
  sending(clientMessageId, text, extras = {}) {
    const atMs = this.#pending.get(clientMessageId)?.atMs ?? Date.now();
    this.#pending.set(clientMessageId, { text, extras, atMs, state: 'sending', reason: '' });
    this.changed();
  }

  /** Mark an own message as stored. The message itself arrives before or after this. */
  sent(clientMessageId) {
    const pending = this.#pending.get(clientMessageId);
    if (pending) pending.state = 'sent';
    this.changed();
  }

  /** Mark an own message as failed; it is not retried. */
  failed(clientMessageId, reason) {
    const pending = this.#pending.get(clientMessageId);
    if (pending) Object.assign(pending, { state: 'failed', reason });
    this.changed();
  }

  /** Return an own message that is not stored yet: `{text, extras, …}`, or null. */
  pendingOf(clientMessageId) {
    return this.#pending.get(clientMessageId) ?? null;
  }

  /** Discard a failed message. */
  discard(clientMessageId) {
    this.#pending.delete(clientMessageId);
    this.changed();
  }

  /** Return the displayed items in order: `{kind: day, unread, message or pending, key, …}`; `me` is the user's id. */
  items(me) {
    const items = [];
    let before = null;
    let divided = this.dividerSeq === null;
    for (const message of this.#messages) {
      const day = dayOf(message.atMs);
      const newDay = before === null || day !== dayOf(before.atMs);
      if (newDay) items.push({ kind: 'day', key: `day-${day}-${message.seq}`, text: day });
      const divider = !divided && message.seq > this.dividerSeq;
      if (divider) {
        items.push({ kind: 'unread', key: 'unread' });
        divided = true;
      }
      const together =
        !newDay && !divider && before.userId === message.userId && message.atMs - before.atMs < TOGETHER_MS;
      items.push({ kind: 'message', key: `m-${message.seq}`, message, together });
      before = message;
    }
    for (const [clientMessageId, pending] of this.#pending) {
      const together = before?.userId === me;
      items.push({ kind: 'pending', key: `p-${clientMessageId}`, clientMessageId, pending, together });
      before = { userId: me };
    }
    return items;
  }
}
