/** Links and mentions within a text, and how the page shows them. The first functions are pure. */

import { h } from './dom.js';

const ADDRESS = /https?:\/\/[^\s<>"'`]+/giu;
const TRAILING = /[.,;:!?)\]}*_~…]+$/u; // is rarely meant as part of an address
const WORD = /[\p{L}\p{N}_]/u;
export const ROOM = 'room'; // `@room` mentions everybody

/** Return the mentions in a text, in order: `{start, end, userId}`. `names`: `{userId, name}`; the longest name wins. */
export function mentionsIn(text, names) {
  const longestFirst = [...names].filter(({ name }) => name).sort((a, b) => b.name.length - a.name.length);
  const found = [];
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) {
    if (at > 0 && WORD.test(text[at - 1])) continue; // an e-mail address
    const match = longestFirst.find(
      ({ name }) => text.startsWith(name, at + 1) && !WORD.test(text[at + 1 + name.length] ?? ' '),
    );
    if (!match) continue;
    const end = at + 1 + match.name.length;
    found.push({ start: at, end, userId: match.userId });
    at = end - 1;
  }
  return found;
}

/** Return the addresses in a text, in order: `{start, end, url}`. */
export function addressesIn(text) {
  return [...text.matchAll(ADDRESS)].flatMap(({ 0: found, index }) => {
    const url = found.replace(TRAILING, '');
    return URL.canParse(url) ? [{ start: index, end: index + url.length, url }] : [];
  });
}

/** Cut a text into parts `{text, url?, userId?}`. An address hides mentions within it. */
export function partsOf(text, names) {
  const addresses = addressesIn(text);
  const isFree = ({ start }) => !addresses.some((address) => address.start <= start && start < address.end);
  const marks = [...addresses, ...mentionsIn(text, names).filter(isFree)].sort((a, b) => a.start - b.start);
  const parts = [];
  let at = 0;
  for (const { start, end, ...mark } of marks) {
    if (start > at) parts.push({ text: text.slice(at, start) });
    parts.push({ text: text.slice(start, end), ...mark });
    at = end;
  }
  if (at < text.length) parts.push({ text: text.slice(at) });
  return parts;
}

/** Return the names that a message mentions, for `partsOf`. */
export function mentionedNames({ mentions, mentionsRoom }, people) {
  const names = mentions.map((userId) => ({ userId, name: people.name(userId) }));
  return mentionsRoom ? [...names, { userId: ROOM, name: ROOM }] : names;
}

/** Build the nodes of a message's text: links open another tab and learn nothing of this page. */
export function textNodes(message, people, me) {
  return partsOf(message.text, mentionedNames(message, people)).map(({ text, url, userId }) => {
    if (url) return outsideLink(url, text);
    if (!userId) return text;
    const isMe = userId === me || userId === ROOM;
    return h('span', { class: `mention${isMe ? ' of-me' : ''}` }, text);
  });
}

export function outsideLink(url, ...content) {
  return h('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, ...content);
}
