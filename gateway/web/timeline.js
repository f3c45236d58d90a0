/** Messages of one room in the order of `seq`, with pending messages at the end. */

import { Changing } from './changes.js';
import { dayOf } from './format.js';

export const PAGE = 50;
const KEPT_MAX = 600; // in the DOM; older messages are loaded again on scrolling
const TOGETHER_MS = 5 * 60_000; // messages of one user within this time share a heading

/** Convert a message from REST or from the live stream into one shape. */
export function messageOf(raw) {
  return {
    id: raw.id ?? raw.messageId,
    seq: raw.seq,
    userId: raw.userId,
    user: raw.user,
    text: raw.message,
    atMs: Date.parse(raw.createdAt ?? raw.timestamp),
    clientMessageId: raw.clientMessageId,
  };
}

export class Timeline extends Changing {
  #messages = []; // in order of seq, without repeats
  #pending = new Map(); // clientMessageId -> {text, state, atMs, reason}
  isLoaded = false;
  /** Last seq that was read when the room was opened; null if nothing was unread. */
  dividerSeq = null;

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

  /** Return the seq of the last message of a user at or before `seq`, or null. */
  lastOf(userId, seq) {
    return this.#messages.findLast((message) => message.userId === userId && message.seq <= seq)?.seq ?? null;
  }

  get length() {
    return this.#messages.length;
  }

  /** Add a page of history, in any order. */
  addPage(messages) {
    for (const message of messages) this.#insert(message);
    this.isLoaded = true;
    this.changed();
  }

  /** Add a message. Returns whether messages before it are missing; the caller then loads them. */
  add(message) {
    const missing = this.isLoaded && this.#messages.length > 0 && message.seq > this.lastSeq + 1;
    const fresh = this.#insert(message);
    if (fresh) this.changed();
    return missing;
  }

  #insert(message) {
    if (message.clientMessageId) this.#pending.delete(message.clientMessageId);
    let at = this.#messages.length;
    while (at > 0 && this.#messages[at - 1].seq > message.seq) at -= 1;
    if (at > 0 && this.#messages[at - 1].seq === message.seq) return false;
    this.#messages.splice(at, 0, message);
    return true;
  }

  /** Drop all but the newest messages; call it while no older message is visible. */
  trim() {
    if (this.#messages.length <= KEPT_MAX) return;
    this.#messages.splice(0, this.#messages.length - KEPT_MAX);
  }

  /** Drop everything from the server, before it is loaded again. */
  restart() {
    this.#messages = [];
    this.isLoaded = false;
    this.changed();
  }

  /** Add an own message that is being sent, for the first time or again. */
  sending(clientMessageId, text) {
    const atMs = this.#pending.get(clientMessageId)?.atMs ?? Date.now();
    this.#pending.set(clientMessageId, { text, atMs, state: 'sending', reason: '' });
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

  pendingText(clientMessageId) {
    return this.#pending.get(clientMessageId)?.text ?? null;
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
