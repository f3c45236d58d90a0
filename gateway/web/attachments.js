/** Attachments by address: recognised when pasted, chips in the composer, cards in messages. Uploads do not exist. */

import { h } from './dom.js';
import { icon } from './icons.js';
import { outsideLink } from './message_text.js';

export const ATTACHMENTS_MAX = 10;
const URL_MAX = 2000;
const NAME_MAX = 200;
const PICTURE = /\.(?:png|jpe?g|gif|webp|avif|svg)$/iu;
const KIND_WORDS = { image: 'Picture', file: 'File', link: 'Link', chart: 'Chart' };
const KIND_ICONS = { image: 'picture', file: 'file', link: 'link', chart: 'chart' };

/** Return the attachment that a pasted text names, or null if it is anything but one https address. */
export function attachmentOf(text) {
  const address = text.trim();
  if (!/^https:\/\/[^\s@]+$/iu.test(address) || address.length > URL_MAX || !URL.canParse(address)) return null;
  const { hostname, pathname } = new URL(address);
  const file = decoded(pathname.split('/').filter(Boolean).at(-1) ?? '');
  const isPicture = PICTURE.test(pathname);
  const name = isPicture || !file ? file || hostname : `${hostname}/…/${file}`;
  return { kind: isPicture ? 'image' : 'link', url: address, name: [...name].slice(0, NAME_MAX).join('') };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Build the chips of attachments that are about to be sent; `remove(index)` takes one away. */
export function attachmentChips(attachments, remove) {
  return attachments.map((attachment, index) =>
    h(
      'li',
      { class: 'attachment-chip' },
      icon(KIND_ICONS[attachment.kind]),
      h('span', { class: 'attachment-name', title: attachment.url }, labelOf(attachment)),
      h(
        'button',
        {
          type: 'button',
          class: 'icon-button small',
          'aria-label': `Remove ${labelOf(attachment)}`,
          title: 'Remove',
          on: { click: () => remove(index) },
        },
        icon('close'),
      ),
    ),
  );
}

/** Build the cards of a message's attachments. Nothing is loaded from other hosts until the user asks for it. */
export function attachmentCards(attachments) {
  if (!attachments.length) return null;
  return h(
    'ul',
    { class: 'attachments', 'aria-label': 'Attachments' },
    attachments.map((attachment) => h('li', {}, card(attachment))),
  );
}

function card(attachment) {
  const { kind, url } = attachment;
  const isHttps = /^https:\/\//iu.test(url);
  const about = h(
    'span',
    { class: 'attachment-about' },
    h('span', { class: 'attachment-name' }, labelOf(attachment)),
    h('span', { class: 'muted small' }, `${KIND_WORDS[kind] ?? 'Link'} · ${hostOf(url)}`),
  );
  const content = [icon(KIND_ICONS[kind] ?? 'link'), about];
  return h(
    'div',
    { class: 'attachment-card' },
    isHttps ? outsideLink(url, ...content) : h('span', { class: 'attachment-plain' }, ...content),
    kind === 'image' && isHttps ? showButton(attachment) : null,
  );
}

/** Build the button that loads a picture into its place: its host learns the reader's address only then. */
function showButton(attachment) {
  const show = () => {
    const picture = h('img', {
      class: 'picture',
      alt: labelOf(attachment),
      referrerpolicy: 'no-referrer',
      decoding: 'async',
    });
    picture.addEventListener('error', () =>
      picture.replaceWith(h('p', { class: 'muted small', role: 'status' }, 'The picture cannot be loaded.')),
    );
    picture.src = attachment.url;
    button.replaceWith(picture);
  };
  const button = h(
    'button',
    {
      type: 'button',
      class: 'button small',
      'aria-label': `Show ${labelOf(attachment)}`,
      title: `Load the picture from ${hostOf(attachment.url)}`,
      on: { click: show },
    },
    'Show',
  );
  return button;
}

const labelOf = ({ name, url }) => name || hostOf(url);

function hostOf(url) {
  return URL.canParse(url) ? new URL(url).hostname : url;
}
