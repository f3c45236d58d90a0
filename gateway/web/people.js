/** Who is who, and who is here: profiles as messages and members' lists bring them, presence as events do. */

import { Changing } from './changes.js';
import { h } from './dom.js';

const HUES = 8;
const ASK_AT_ONCE = 100;

export class People extends Changing {
  #profiles = new Map();
  #online = new Map();

  constructor(api) {
    super();
    this.api = api;
  }

  /** Take in a profile; an empty one tells nothing. */
  learn(userId, profile) {
    if (!profile || !(profile.firstName || profile.lastName || profile.avatar)) return;
    const known = this.#profiles.get(userId);
    const same =
      known && ['firstName', 'lastName', 'avatar'].every((name) => (known[name] ?? '') === (profile[name] ?? ''));
    if (same) return;
    this.#profiles.set(userId, profile);
    this.changed();
  }

  /** Take in `{userId, status}`. */
  seen({ userId, status }) {
    const online = status === 'online';
    if (this.#online.get(userId) === online) return;
    this.#online.set(userId, online);
    this.changed();
  }

  /** Ask for the presence of these users. */
  async ask(userIds) {
    for (let at = 0; at < userIds.length; at += ASK_AT_ONCE) {
      for (const state of await this.api.presence(userIds.slice(at, at + ASK_AT_ONCE))) this.seen(state);
    }
  }

  isOnline(userId) {
    return this.#online.get(userId) === true;
  }

  profile(userId) {
    return this.#profiles.get(userId) ?? {};
  }

  /** The name, or the id of somebody whom nobody has introduced. */
  name(userId) {
    const { firstName = '', lastName = '' } = this.profile(userId);
    return `${firstName} ${lastName}`.trim() || userId;
  }

  /** The name as one says it. */
  firstName(userId) {
    return this.profile(userId).firstName || this.name(userId);
  }

  /** Every known user but `except`, by name. */
  all(except) {
    const ids = [...this.#profiles.keys()].filter((id) => id !== except);
    return ids.sort((a, b) => this.name(a).localeCompare(this.name(b)));
  }

  /** A round picture, or initials on a colour of the user's own; with a dot of presence if asked for. */
  avatar(userId, { size = 'medium', dot = false } = {}) {
    const circle = h(
      'span',
      { class: `avatar ${size} hue-${hueOf(userId)}`, 'aria-hidden': 'true' },
      initialsOf(this.name(userId)),
    );
    const { avatar } = this.profile(userId);
    if (typeof avatar === 'string' && avatar.startsWith('https://')) {
      const picture = h('img', { alt: '', loading: 'lazy', decoding: 'async', referrerpolicy: 'no-referrer' });
      picture.addEventListener('error', () => picture.remove());
      picture.src = avatar;
      circle.append(picture);
    }
    if (!dot) return circle;
    return h('span', { class: 'avatar-with-dot' }, circle, presenceDot(this.isOnline(userId)));
  }
}

/** A dot whose meaning is said as well. */
export function presenceDot(online) {
  const word = online ? 'online' : 'offline';
  return h('span', { class: `presence ${word}` }, h('span', { class: 'visually-hidden' }, word));
}

function initialsOf(name) {
  const words = name
    .replace(/^user_/, '')
    .split(/[\s_.-]+/)
    .filter(Boolean);
  const first = [...(words[0] ?? '?')][0];
  const last = words.length > 1 ? [...words.at(-1)][0] : '';
  return (first + last).toUpperCase();
}

function hueOf(userId) {
  let hash = 0;
  for (const letter of userId) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash % HUES;
}
