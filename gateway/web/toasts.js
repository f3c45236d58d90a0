/** Temporary notes at the edge of the page. */

import { byId, h } from './dom.js';
import { icon } from './icons.js';

const SHOWN_MS = { note: 6000, error: 9000, urgent: 12_000 };
const SHOWN_MAX = 4;

/** Show a note. `kind`: note, error, urgent. Returns a function that removes it. */
export function toast(text, kind = 'note') {
  const toasts = byId('toasts');
  const remove = () => note.remove();
  const note = h(
    'div',
    { class: `toast ${kind}` },
    h('p', {}, text),
    h(
      'button',
      { type: 'button', class: 'icon-button small', 'aria-label': 'Dismiss', on: { click: remove } },
      icon('close'),
    ),
  );
  toasts.append(note);
  while (toasts.children.length > SHOWN_MAX) toasts.firstElementChild.remove();
  setTimeout(remove, SHOWN_MS[kind]);
  return remove;
}
