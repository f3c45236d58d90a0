/** The quoted message above a reply, and the bar above the composer that shows the message being answered or edited. */

import { h } from './dom.js';
import { icon } from './icons.js';

const GONE = 'Message deleted';
const EMPTY = 'Attachment or deleted message';
const SHORT_MAX = 120;

/** Return a text in one line, or the words for a message without one. */
export function oneLine(text, isDeleted = false) {
  return text.replace(/\s+/gu, ' ').trim() || (isDeleted ? GONE : 'Attachment');
}

/** Return the text of a quote or notification in one line. */
export const noticeLine = (text) => (text === '' ? EMPTY : oneLine(text));

/** Return the beginning of a text, for dialogs. */
export function shortened(text) {
  const letters = [...text];
  return letters.length > SHORT_MAX ? `${letters.slice(0, SHORT_MAX).join('')}…` : text;
}

/** Build the quote of a reply; `jump` shows the original. */
export function quote({ userId, text }, people, jump) {
  const line = noticeLine(text);
  return h(
    'button',
    {
      type: 'button',
      class: 'quote',
      title: 'Show the original message',
      on: { click: jump },
    },
    icon('reply'),
    h('span', { class: 'visually-hidden' }, 'In reply to '),
    h('span', { class: 'quote-author' }, people.name(userId)),
    h('span', { class: `quote-text${text === '' ? ' is-empty' : ''}` }, line),
  );
}

/** Build the content of the bar above the composer, or nothing. */
export function composeBar({ replyTo, editing }, people, cancel) {
  const message = editing ?? replyTo;
  if (!message) return [];
  const what = editing ? 'Edit message' : `Reply to ${people.name(message.userId)}`;
  return [
    icon(editing ? 'edit' : 'reply'),
    h(
      'div',
      { class: 'compose-about' },
      h('p', { class: 'compose-what' }, what),
      h('p', { class: 'compose-text muted small' }, oneLine(message.text, Boolean(message.deletedAtMs))),
    ),
    h(
      'button',
      {
        type: 'button',
        class: 'icon-button small',
        'aria-label': editing ? 'Cancel the edit' : 'Cancel the reply',
        title: 'Cancel (Escape)',
        on: { click: cancel },
      },
      icon('close'),
    ),
  ];
}
