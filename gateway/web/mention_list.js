/** List of members that opens after `@` in the composer. The first functions are pure. */

import { announce, h } from './dom.js';
import { counted } from './format.js';
import { ROOM } from './message_text.js';

const SHOWN_MAX = 8;
const TYPED = /(?:^|[\s(\[{"'])@([^\s@]{0,40}(?: [^\s@]{0,40})?)$/u; // a name may have a second word

/** Return the text after the `@` before the caret, `{start, query}`, or null. */
export function mentionBefore(text, caret) {
  const found = text.slice(0, caret).match(TYPED);
  return found && { start: caret - found[1].length - 1, query: found[1] };
}

/**
 * Return the candidates `{userId, name}` with a word that begins with the query: names that begin with it come first,
 * then other words of names, then ids.
 */
export function matching(candidates, query) {
  const wanted = folded(query);
  const rank = ({ name, userId }) => {
    const known = folded(name);
    if (known.startsWith(wanted)) return 0;
    if (known.split(/[\s._-]+/u).some((word) => word.startsWith(wanted))) return 1;
    return folded(userId).startsWith(wanted) ? 2 : 3;
  };
  const ranked = candidates.map((candidate) => [rank(candidate), candidate]).filter(([place]) => place < 3);
  return ranked
    .sort((a, b) => a[0] - b[0])
    .slice(0, SHOWN_MAX)
    .map(([, candidate]) => candidate);
}

const folded = (text) =>
  text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase();

/** The list beside a text field; `candidates()` returns the users to offer, `inserted(candidate)` is called for a choice. */
export class MentionList {
  #found = [];
  #at = 0;
  #dismissed = null; // start of the mention that Escape has closed

  constructor(field, people, candidates, inserted) {
    Object.assign(this, { field, people, candidates, inserted });
    this.element = h('ul', {
      class: 'mention-list',
      id: 'mention-list',
      role: 'listbox',
      'aria-label': 'Members to mention',
      hidden: true,
    });
    field.setAttribute('aria-autocomplete', 'list');
    field.setAttribute('aria-controls', this.element.id);
    field.setAttribute('aria-haspopup', 'listbox');
    field.addEventListener('input', () => this.update());
    field.addEventListener('click', () => this.update());
    field.addEventListener('blur', () => this.close());
    this.element.addEventListener('pointerdown', (event) => event.preventDefault()); // keeps the focus in the field
  }

  get isOpen() {
    return !this.element.hidden;
  }

  update() {
    const { field } = this;
    const typed = mentionBefore(field.value, field.selectionStart);
    if (!typed || typed.start !== this.#dismissed) this.#dismissed = null;
    const found = typed && this.#dismissed === null ? matching(this.candidates(), typed.query) : [];
    const same = this.isOpen && found.map(({ userId }) => userId).join() === this.#found.map(({ userId }) => userId).join();
    if (same) return;
    this.#found = found;
    this.#at = 0;
    this.#render();
    if (found.length) announce(`${counted(found.length, 'suggestion')}, arrows to choose, Enter to insert`);
  }

  close() {
    this.#found = [];
    this.#render();
  }

  /** Handle a key of the field. Returns whether the list has used it. */
  key(event) {
    if (!this.isOpen || event.isComposing) return false;
    const count = this.#found.length;
    if (event.key === 'ArrowDown') this.#at = (this.#at + 1) % count;
    else if (event.key === 'ArrowUp') this.#at = (this.#at + count - 1) % count;
    else if ((event.key === 'Enter' && !event.shiftKey) || event.key === 'Tab') this.#choose(this.#found[this.#at]);
    else if (event.key === 'Escape') {
      this.#dismissed = mentionBefore(this.field.value, this.field.selectionStart)?.start ?? null;
      this.close();
    } else return false;
    event.preventDefault();
    event.stopPropagation();
    if (this.isOpen) this.#render();
    return true;
  }

  #choose(candidate) {
    const { field } = this;
    const { start } = mentionBefore(field.value, field.selectionStart) ?? { start: field.selectionStart };
    const text = `@${candidate.name} `;
    field.setRangeText(text, start, field.selectionStart, 'end');
    this.close();
    this.inserted(candidate);
  }

  #render() {
    const { element, field, people } = this;
    element.hidden = this.#found.length === 0;
    element.replaceChildren(
      ...this.#found.map((candidate, index) => {
        const { userId, name } = candidate;
        const isRoom = userId === ROOM;
        return h(
          'li',
          {
            id: `mention-${index}`,
            role: 'option',
            class: 'mention-option',
            'aria-selected': String(index === this.#at),
            on: { click: () => this.#choose(candidate) },
          },
          isRoom ? h('span', { class: 'avatar small', 'aria-hidden': 'true' }, '@') : people.avatar(userId, { size: 'small' }),
          h('span', { class: 'room-name' }, isRoom ? '@room' : name),
          h('span', { class: 'room-counts' }, isRoom ? 'everybody in this room' : userId),
        );
      }),
    );
    if (element.hidden) field.removeAttribute('aria-activedescendant');
    else field.setAttribute('aria-activedescendant', `mention-${this.#at}`);
    element.children[this.#at]?.scrollIntoView({ block: 'nearest' });
  }
}
