/** Messages outside of the conversation: in the list of pins and in search results. */

import { h } from './dom.js';
import { fullTimeOf, agoOf } from './format.js';
import { oneLine } from './reply_preview.js';

/** Build an entry of a list of messages; `jump()` shows the message in the room. `more` follows the text. */
export function resultItem({ people }, message, jump, ...more) {
  const { userId, text, atMs, deletedAtMs } = message;
  const time = h('time', { datetime: new Date(atMs).toISOString(), title: fullTimeOf(atMs) }, agoOf(atMs));
  return h(
    'li',
    { class: 'result' },
    h(
      'button',
      { type: 'button', class: 'result-jump', on: { click: jump } },
      people.avatar(userId, { size: 'small' }),
      h(
        'span',
        { class: 'result-about' },
        h('span', { class: 'result-head' }, h('span', { class: 'author' }, people.name(userId)), time),
        h('span', { class: 'result-text' }, oneLine(text, Boolean(deletedAtMs))),
      ),
    ),
    more.some(Boolean) ? h('div', { class: 'result-foot' }, ...more) : null,
  );
}
