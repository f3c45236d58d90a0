/** Rendering of timeline items: days, the unread divider, messages and pending messages. */

import { h } from './dom.js';
import { fullTimeOf, timeOf } from './format.js';

export class MessageItems {
  constructor(session) {
    this.session = session;
  }

  /** Return a timeline item for `reconcile`; `readers` comes from `readersBySeq`. */
  item(item, readers) {
    const { people, me } = this.session;
    switch (item.kind) {
      case 'day':
        return { key: item.key, version: item.text, make: () => h('li', { class: 'day' }, h('span', {}, item.text)) };
      case 'unread':
        return { key: item.key, version: 0, make: () => h('li', { class: 'unread-line' }, h('span', {}, 'New')) };
      case 'pending':
        return { key: item.key, version: `${item.pending.state}${item.together}`, make: () => this.#pending(item) };
      default: {
        const { message, together } = item;
        const seenBy = message.userId === me.userId ? (readers.get(message.seq) ?? []) : [];
        const version = `${together}${people.name(message.userId)}${people.isOnline(message.userId)}${seenBy.join()}`;
        return { key: item.key, version, make: () => this.#message(message, together, seenBy) };
      }
    }
  }

  #message({ userId, text, atMs, seq }, together, seenBy) {
    const { people } = this.session;
    const seen = seenBy.length
      ? h(
          'span',
          { class: 'seen' },
          h('span', { class: 'visually-hidden' }, `Read by ${seenBy.map((id) => people.name(id)).join(', ')}`),
          seenBy.slice(0, 5).map((id) => people.avatar(id, { size: 'tiny' })),
        )
      : null;
    return this.#line({ userId, text, atMs, together, seen, data: { seq } });
  }

  #pending({ clientMessageId, pending, together }) {
    const { conversation, me } = this.session;
    const act = (label, work) => h('button', { type: 'button', class: 'link', on: { click: work } }, label);
    const failed = pending.state === 'failed';
    const state = failed
      ? h(
          'span',
          { class: 'failed', role: 'alert' },
          `Not sent: ${pending.reason} `,
          act('Retry', () => conversation.retry(clientMessageId)),
          ' ',
          act('Discard', () => conversation.timeline.discard(clientMessageId)),
        )
      : h('span', { class: 'sending' }, 'Sending…');
    return this.#line({
      userId: me.userId,
      text: pending.text,
      atMs: pending.atMs,
      together,
      seen: state,
      data: { state: pending.state },
    });
  }

  #line({ userId, text, atMs, together, seen, data }) {
    const { people, me } = this.session;
    const isMine = userId === me.userId;
    const time = h('time', { datetime: new Date(atMs).toISOString(), title: fullTimeOf(atMs) }, timeOf(atMs));
    const write = () => this.session.writeTo(userId);
    const name = isMine
      ? h('span', { class: 'author' }, people.name(userId))
      : h(
          'button',
          { type: 'button', class: 'author link', title: 'Write a direct message', on: { click: write } },
          people.name(userId),
        );
    return h(
      'li',
      { class: `message${together ? ' together' : ''}${isMine ? ' mine' : ''}`, data },
      together ? time : people.avatar(userId, { dot: !isMine }),
      h(
        'div',
        { class: 'message-body' },
        together ? null : h('p', { class: 'message-head' }, name, time),
        h('p', { class: 'message-text' }, text),
        seen,
      ),
    );
  }
}

/** Group readers by the seq of the last own message at or before their read mark. */
export function readersBySeq({ readers, timeline, me }, lastSeq) {
  const shown = new Map();
  for (const [userId, seq] of readers) {
    const at = timeline.lastOf(me, Math.min(seq, lastSeq));
    if (at !== null) shown.set(at, [...(shown.get(at) ?? []), userId]);
  }
  return shown;
}
