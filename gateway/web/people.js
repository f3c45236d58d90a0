/** Profiles, collected from messages and member lists, and presence, collected from events. */

import { Observable } from './changes.js';
import { h } from './dom.js';

const HUES = 8;
const ASK_AT_ONCE = 100;

export class People extends Observable {
  #profiles = new Map();
  #online = new Map();

  constructor(api) {
    super();
    this.api = api;
  }

  /** Store a profile; an empty one is ignored. */
  learn(userId, profile) {
    if (!profile || !(profile.firstName || profile.lastName || profile.avatar)) return;
    const known = this.#profiles.get(userId);
    const same =
      known && ['firstName', 'lastName', 'avatar'].every((name) => (known[name] ?? '') === (profile[name] ?? ''));
    if (same) return;
    this.#profiles.set(userId, profile);
    this.changed();
  }

  /** Store a presence: `{userId, status}`. */
  seen({ userId, status }) {
    const online = status === 'online';
    if (this.#online.get(userId) === online) return;
    this.#online.set(userId, online);
    this.changed();
  }

  /** Request the presence of users. */
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

  /** Return the full name, or the id of a user without a known profile. */
  name(userId) {
    const { firstName = '', lastName = '' } = this.profile(userId);
    return `${firstName} ${lastName}`.trim() || userId;
  }

  /** Return the first name. */
  firstName(userId) {
    return this.profile(userId).firstName || this.name(userId);
  }

  /** Return all known users except `except`, sorted by name. */
  all(except) {
    const ids = [...this.#profiles.keys()].filter((id) => id !== except);
    return ids.sort((a, b) => this.name(a).localeCompare(this.name(b)));
  }

  /** Build an avatar: the picture, or initials on a colour derived from the user; optionally with a presence dot. */
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

/** Build a presence dot with a label for screen readers. */
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
