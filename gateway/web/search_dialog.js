/** Search in the messages of one room. */

import { openDialog } from './dialogs.js';
import { h, setText } from './dom.js';
import { counted } from './format.js';
import { messageOf } from './message_model.js';
import { resultItem } from './message_results.js';

const DELAY_MS = 250;
const QUERY_MIN = 2; // characters
const QUERY_MAX = 100;
const PAGE = 20;

/** Open the search; `jump(message)` shows a message among its neighbours. */
export function searchDialog(session, conversation, jump) {
  new Search(session, conversation, jump).open();
}

class Search {
  #asked = 0; // number of the newest request; answers of earlier ones are dropped
  #next = null; // the id before which older messages were not looked at
  #timer = null;

  constructor(session, conversation, jump) {
    Object.assign(this, { session, conversation, jump });
    this.field = h('input', {
      type: 'search',
      'aria-label': `Search in ${conversation.room?.name ?? 'this room'}`,
      placeholder: 'Words of a message',
      autocomplete: 'off',
      maxlength: QUERY_MAX,
    });
    this.field.addEventListener('input', () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#search(), DELAY_MS);
    });
    this.note = h('p', { class: 'muted small', role: 'status' });
    this.list = h('ol', { class: 'results', 'aria-label': 'Results' });
    this.older = h(
      'button',
      { type: 'button', class: 'button small', hidden: true, on: { click: () => this.#more() } },
      'Search older messages',
    );
  }

  open() {
    this.dialog = openDialog({
      title: 'Search messages',
      kind: 'side',
      onClose: () => clearTimeout(this.#timer),
      fill: () => [this.field, this.note, this.list, this.older],
    });
    this.field.focus();
  }

  async #search() {
    this.list.replaceChildren();
    this.#next = null;
    this.older.hidden = true;
    this.#asked += 1;
    setText(this.note, '');
    if ([...this.field.value.trim()].length >= QUERY_MIN) await this.#load();
  }

  #more() {
    return this.#load(this.#next);
  }

  async #load(before) {
    this.#asked += 1;
    const mine = this.#asked;
    const q = this.field.value.trim();
    try {
      const { data, pagination } = await this.session.api.search(this.conversation.id, { q, limit: PAGE, before });
      if (mine === this.#asked) this.#show(data.map(messageOf), pagination.next ?? null);
    } catch (error) {
      if (mine === this.#asked) setText(this.note, error.message);
    }
  }

  #show(messages, next) {
    const { people } = this.session;
    for (const { userId, user } of messages) people.learn(userId, user);
    const show = (message) => {
      this.dialog.close();
      this.jump(message);
    };
    const items = messages.map((message) => resultItem(this.session, message, () => show(message)));
    const hadFocus = document.activeElement === this.older;
    this.list.append(...items);
    this.#next = next;
    this.older.hidden = next === null;
    const count = this.list.childElementCount;
    setText(this.note, count || next ? counted(count, 'message') + (next ? ' so far' : '') : 'No message has these words.');
    if (hadFocus) (items[0]?.querySelector('button') ?? (next ? this.older : this.field)).focus();
  }
}
