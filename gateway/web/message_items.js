/** Rendering of timeline items: days, the unread divider, messages and pending messages. */

import { attachmentCards } from './attachments.js';
import { h } from './dom.js';
import { fullTimeOf, timeOf } from './format.js';
import { icon } from './icons.js';
import { textNodes } from './message_text.js';
import { reactionChips } from './reactions.js';
import { quote } from './reply_preview.js';

const versions = new WeakMap(); // messages are replaced, never changed

function contentOf(message) {
  if (!versions.has(message)) {
    const { text, editedAtMs, deletedAtMs, reactions, replyTo, attachments, mentions } = message;
    versions.set(message, JSON.stringify([text, editedAtMs, deletedAtMs, reactions, replyTo, attachments, mentions]));
  }
  return versions.get(message);
}

export class MessageItems {
  /** The seq of the message that a jump has reached. */
  targetSeq = null;

  /** `acts`: `{jump(messageId), toggle(message, emoji), pick(message, anchor)}`. */
  constructor(session, acts) {
    Object.assign(this, { session, acts });
  }

  /** Return a timeline item for `reconcile`; `readers` comes from `readersBySeq`. */
  item(item, readers) {
    switch (item.kind) {
      case 'day':
        return { key: item.key, version: item.text, make: () => h('li', { class: 'day' }, h('span', {}, item.text)) };
      case 'unread':
        return { key: item.key, version: 0, make: () => h('li', { class: 'unread-line' }, h('span', {}, 'New')) };
      case 'pending':
        return {
          key: item.key,
          version: `${item.pending.state}${item.together}${item.pending.extras.quote?.text}`,
          make: () => this.#pending(item),
        };
      default: {
        const { message, together } = item;
        const { people, me, conversation } = this.session;
        const seenBy = message.userId === me.userId ? (readers.get(message.seq) ?? []) : [];
        const isPinned = conversation.pins.has(message.id);
        const isTarget = message.seq === this.targetSeq;
        const named = [message.userId, message.replyTo?.userId, ...message.mentions].map((id) => id && people.name(id));
        const shown = [together, people.isOnline(message.userId), seenBy, isPinned, isTarget, named];
        const version = `${shown.join()} ${contentOf(message)}`;
        return { key: item.key, version, make: () => this.#message(message, { together, seenBy, isPinned, isTarget }) };
      }
    }
  }

  #message(message, { together, seenBy, isPinned, isTarget }) {
    const { people, me, conversation } = this.session;
    const { toggle, pick } = this.acts;
    const seen = seenBy.length
      ? h(
          'span',
          { class: 'seen' },
          h('span', { class: 'visually-hidden' }, `Read by ${seenBy.map((id) => people.name(id)).join(', ')}`),
          seenBy.slice(0, 5).map((id) => people.avatar(id, { size: 'tiny' })),
        )
      : null;
    const reactions = reactionChips(this.session, conversation, message, {
      toggle: (emoji) => toggle(message, emoji),
      add: (anchor) => pick(message, anchor),
    });
    const isOfMe = message.mentions.includes(me.userId) || (message.mentionsRoom && message.userId !== me.userId);
    const more = [isOfMe && 'mentions-me', isTarget && 'is-target', isPinned && 'is-pinned'].filter(Boolean).join(' ');
    return this.#line(message, { together, isPinned, more, below: [reactions, seen], data: { seq: message.seq } });
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
    const { quote: replyTo = null, mentions = [], mentionRoom = false, attachments = [] } = pending.extras;
    const { text, atMs } = pending;
    const message = { userId: me.userId, text, atMs, replyTo, mentions, mentionsRoom: mentionRoom, attachments };
    return this.#line(message, { together, more: '', below: [state], data: { state: pending.state } });
  }

  #line(message, { together, isPinned = false, more, below, data }) {
    const { people, me } = this.session;
    const { userId, atMs, replyTo } = message;
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
    const isStored = data.seq !== undefined; // stored messages are stops of the arrow keys
    return h(
      'li',
      {
        class: `message${together ? ' together' : ''}${isMine ? ' mine' : ''} ${more}`.trimEnd(),
        tabindex: isStored ? '-1' : null,
        data,
      },
      together ? time : people.avatar(userId, { dot: !isMine }),
      h(
        'div',
        { class: 'message-body' },
        together ? null : h('p', { class: 'message-head' }, name, time),
        isPinned ? h('p', { class: 'pin-mark' }, icon('pin'), 'Pinned') : null,
        replyTo ? quote(replyTo, people, () => this.acts.jump(replyTo.messageId)) : null,
        this.#content(message),
        attachmentCards(message.attachments),
        below,
      ),
    );
  }

  #content(message) {
    const { people, me } = this.session;
    const { text, userId, editedAtMs, deletedAtMs, deletedBy } = message;
    if (deletedAtMs) {
      const by = deletedBy && deletedBy !== userId ? ` by ${people.name(deletedBy)}` : '';
      const title = `Deleted${by}, ${fullTimeOf(deletedAtMs)}`;
      return h('p', { class: 'message-text is-deleted', title }, icon('trash'), 'Message deleted');
    }
    const edited = editedAtMs
      ? h('span', { class: 'edited', title: `Edited ${fullTimeOf(editedAtMs)}` }, '(edited)')
      : null;
    if (!text) return edited;
    return h('div', {}, h('p', { class: 'message-text' }, textNodes(message, people, me.userId)), edited);
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
