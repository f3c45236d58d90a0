/** View of the open room: head, messages, typing users, and the composer below. */

import { ChatHead } from './chat_head.js';
import { Composer } from './composer.js';
import { h } from './dom.js';
import { icon } from './icons.js';
import { MessagePane } from './message_pane.js';
import { pinsDialog } from './pins_dialog.js';
import { searchDialog } from './search_dialog.js';

export class ChatView {
  #ends = [];
  #shown = null; // displayed: a Conversation, the id of a user without a direct room yet, or null

  constructor(root, session, show) {
    Object.assign(this, { root, session, show });
    session.onChange(() => this.#switch());
    session.rooms.onChange(() => this.#renderHead());
    session.people.onChange(() => this.#render());
    document.addEventListener('visibilitychange', () => this.pane?.markRead());
    this.#switch();
  }

  /** Show a message of the open room. */
  jumpTo(messageId) {
    return this.pane?.jumpTo(messageId);
  }

  #switch() {
    const { conversation, draftTo } = this.session;
    const wanted = conversation ?? draftTo;
    if (wanted === this.#shown && this.root.firstChild) return;
    for (const end of this.#ends) end();
    this.#ends = [];
    this.#shown = wanted;
    this.pane = null;
    if (!wanted) {
      this.root.replaceChildren(emptyState());
      return;
    }
    this.#build(conversation);
    if (conversation) this.#ends.push(conversation.onChange(() => this.#render()));
    this.#renderHead();
    this.#render();
    this.pane?.toBottom();
    if (matchMedia('(min-width: 760px)').matches) this.composer.text.focus();
  }

  #build(conversation) {
    const jump = ({ id }) => this.jumpTo(id);
    this.head = new ChatHead(this.session, {
      back: () => this.show('rooms'),
      pins: () => pinsDialog(this.session, conversation, jump),
      search: () => searchDialog(this.session, conversation, jump),
    });
    this.typing = h('p', { class: 'typing', 'aria-live': 'off' });
    this.composer = new Composer(this.session, {
      onSent: () => this.pane?.toNewest(),
      onEmptied: (message) => this.pane?.actions.remove(message),
    });
    if (conversation) this.pane = this.#newPane(conversation);
    this.root.replaceChildren(
      this.head.element,
      this.pane?.element ?? h('div', { class: 'scroll-frame' }),
      this.typing,
      this.composer.element,
    );
  }

  #newPane(conversation) {
    const isSeen = () => this.root.offsetParent !== null && this.session.conversation === conversation;
    const acts = {
      reply: (message) => this.composer.reply(message),
      edit: (message) => this.composer.edit(message),
    };
    const pane = new MessagePane(this.session, conversation, isSeen, acts);
    this.#ends.push(() => pane.end());
    return pane;
  }

  #renderHead() {
    if (!this.#shown) return;
    const { rooms, draftTo } = this.session;
    const room = rooms.open;
    const partner = draftTo ?? rooms.partner(room);
    if (!room && !partner) return;
    this.head.render(room, partner);
    this.composer.render();
  }

  #render() {
    const { conversation } = this.session;
    if (!this.#shown || conversation !== this.#shown) return;
    this.#renderHead();
    this.pane.render();
    this.#renderTyping(conversation);
  }

  #renderTyping(conversation) {
    const names = [...conversation.typing.keys()].map((id) => this.session.people.firstName(id));
    const verb = names.length === 1 ? 'is' : 'are';
    const who = names.length > 3 ? `${names.length} people` : names.join(names.length === 2 ? ' and ' : ', ');
    const text = names.length ? `${who} ${verb} typing` : '';
    if (this.typing.dataset.text === text) return;
    this.typing.dataset.text = text;
    const dots = h('span', { class: 'typing-dots', 'aria-hidden': 'true' }, h('i'), h('i'), h('i'));
    this.typing.replaceChildren(...(text ? [dots, text] : []));
  }
}

function emptyState() {
  return h(
    'div',
    { class: 'empty-state' },
    icon('chat'),
    h('h2', {}, 'No conversation open'),
    h('p', { class: 'muted' }, 'Choose a room from the list, find one with the search, or create a new one.'),
  );
}
