/** Search in the messages of one room. The results follow edits and deletions. */

import { openDialog } from './dialogs.js';
import { h, reconcile, setText } from './dom.js';
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
  #found = []; // messages
  #rev = 0; // the last entry of the room's log that the results include
  #gaps = 0;

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
    const { conversation } = this;
    this.#rev = conversation.timeline.rev;
    this.#gaps = conversation.gaps;
    const end = conversation.onChange(() => this.#follow());
    this.dialog = openDialog({
      title: 'Search messages',
      kind: 'side',
      onClose: () => {
        clearTimeout(this.#timer);
        end();
      },
      fill: () => [this.field, this.note, this.list, this.older],
    });
    this.field.focus();
  }

  async #search() {
    this.#found = [];
    this.#next = null;
    this.#asked += 1;
    this.#render();
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
    const { timeline } = this.conversation;
    const asOfRev = timeline.rev;
    try {
      const { data, pagination } = await this.session.api.search(this.conversation.id, { q, limit: PAGE, before });
      if (mine !== this.#asked) return;
      const messages = data.map((raw) => timeline.upToDate(messageOf(raw), asOfRev));
      this.#show(messages, pagination.next ?? null);
    } catch (error) {
      if (mine === this.#asked) setText(this.note, error.message);
    }
  }

  #show(messages, next) {
    for (const { userId, user } of messages) this.session.people.learn(userId, user);
    const hadFocus = document.activeElement === this.older;
    const first = this.#found.length;
    this.#found = [...this.#found, ...messages.filter(({ deletedAtMs }) => !deletedAtMs)];
    this.#next = next;
    this.#render();
    this.#count();
    if (hadFocus) (this.list.children[first]?.querySelector('button') ?? (next ? this.older : this.field)).focus();
  }

  /** Update the results after changes in the room, or search again if changes were missed. */
  #follow() {
    const { timeline, gaps } = this.conversation;
    const since = this.#rev;
    this.#rev = timeline.rev;
    if (gaps !== this.#gaps) {
      this.#gaps = gaps;
      this.#search();
      return;
    }
    const before = this.#found;
    const after = before.map((message) => timeline.upToDate(message, since)).filter(({ deletedAtMs }) => !deletedAtMs);
    if (after.length === before.length && after.every((message, at) => message === before[at])) return;
    const hadFocus = this.list.contains(document.activeElement);
    this.#found = after;
    this.#render();
    this.#count();
    if (hadFocus && !this.list.contains(document.activeElement)) this.field.focus();
  }

  #render() {
    const show = (message) => {
      this.dialog.close();
      this.jump(message);
    };
    reconcile(
      this.list,
      this.#found.map((message) => ({
        key: message.id,
        version: message.text,
        make: () => resultItem(this.session, message, () => show(message)),
      })),
    );
    this.older.hidden = this.#next === null;
  }

  #count() {
    const count = this.#found.length;
    const more = this.#next === null ? '' : ' so far';
    setText(this.note, count || more ? counted(count, 'message') + more : 'No message has these words.');
  }
}
