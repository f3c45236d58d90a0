/** View of the open room: header, messages, typing users, and the composer below. */

import { Composer } from './composer.js';
import { announce, h, reconcile, setText } from './dom.js';
import { counted } from './format.js';
import { icon } from './icons.js';
import { MessageItems, readersBySeq } from './message_items.js';
import { deleteRoomDialog, membersDialog } from './room_dialogs.js';

const NEAR_BOTTOM_PX = 80;
const NEAR_TOP_PX = 300;

export class ChatView {
  #ends = [];
  #shown = null; // displayed: a Conversation, the id of a user without a direct room yet, or null
  #announcedSeq = 0;

  constructor(root, session, show) {
    Object.assign(this, { root, session, show });
    this.items = new MessageItems(session);
    session.onChange(() => this.#switch());
    session.rooms.onChange(() => this.#renderHead());
    session.people.onChange(() => this.#render());
    document.addEventListener('visibilitychange', () => this.#markRead());
    this.#switch();
  }

  #switch() {
    const { conversation, draftTo } = this.session;
    const wanted = conversation ?? draftTo;
    if (wanted === this.#shown && this.root.firstChild) return;
    for (const end of this.#ends) end();
    this.#ends = [];
    this.#shown = wanted;
    if (!wanted) {
      this.root.replaceChildren(emptyState());
      return;
    }
    this.#build();
    if (conversation) this.#ends.push(conversation.onChange(() => this.#render()));
    this.#announcedSeq = conversation?.timeline.lastSeq ?? 0;
    this.#renderHead();
    this.#render();
    this.#toBottom();
    if (matchMedia('(min-width: 760px)').matches) this.composer.text.focus();
  }

  #build() {
    const back = h(
      'button',
      {
        type: 'button',
        class: 'icon-button back',
        'aria-label': 'Back to the rooms',
        on: { click: () => this.show('rooms') },
      },
      icon('back'),
    );
    this.sign = h('span', { class: 'chat-sign' });
    this.title = h('h2', { class: 'chat-title' });
    this.subtitle = h('p', { class: 'muted small' });
    this.actions = h('div', { class: 'chat-actions' });
    this.head = h(
      'div',
      { class: 'chat-head' },
      back,
      this.sign,
      h('div', { class: 'chat-names' }, this.title, this.subtitle),
      this.actions,
    );
    this.list = h('ol', { class: 'messages' });
    this.older = h(
      'button',
      { type: 'button', class: 'button small older', on: { click: () => this.#loadOlder() } },
      'Earlier messages',
    );
    this.scroll = h(
      'div',
      { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Messages' },
      this.older,
      this.list,
    );
    this.scroll.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.jump = h(
      'button',
      { type: 'button', class: 'jump', hidden: true, on: { click: () => this.#toBottom() } },
      icon('down'),
      'Newest',
    );
    this.typing = h('p', { class: 'typing', 'aria-live': 'off' });
    this.composer = new Composer(this.session, () => this.#toBottom());
    this.root.replaceChildren(
      this.head,
      h('div', { class: 'scroll-frame' }, this.scroll, this.jump),
      this.typing,
      this.composer.element,
    );
    const observer = new ResizeObserver(() => {
      if (this.stuck) this.#toBottom();
      this.#markRead();
    });
    observer.observe(this.scroll);
    this.#ends.push(() => observer.disconnect());
    this.stuck = true;
  }

  // Header -----------------------------------------------------------------------------------------------------------

  #renderHead() {
    if (!this.#shown) return;
    const { session } = this;
    const { people, rooms } = session;
    const room = rooms.open;
    const partner = session.draftTo ?? rooms.partner(room);
    if (!room && !partner) return;
    setText(this.title, partner ? people.name(partner) : room.name);
    setText(this.subtitle, partner ? (people.isOnline(partner) ? 'online' : 'offline') : countsOf(room));
    const sign = partner && {
      key: partner,
      version: `${people.name(partner)}${people.isOnline(partner)}`,
      make: () => people.avatar(partner, { dot: true }),
    };
    reconcile(this.sign, sign ? [sign] : []);
    const actions = {
      key: 'actions',
      version: `${room?.isMember} ${session.conversation?.role} ${partner}`,
      make: () => h('div', { class: 'chat-actions' }, this.#actions(room)),
    };
    reconcile(this.actions, [actions]);
    this.composer.render();
  }

  #actions(room) {
    const { session } = this;
    if (!room || room.directUserIds) return [];
    const attempt = (work) => () => work().catch((error) => session.tell(error.message, 'error'));
    const button = (label, act, more = '') =>
      h('button', { type: 'button', class: `button small ${more}`, on: { click: act } }, label);
    const members = () => membersDialog(session, session.conversation);
    const actions = [
      h(
        'button',
        { type: 'button', class: 'button small', 'aria-label': 'Members', on: { click: members } },
        icon('group'),
        h('span', { class: 'button-text' }, 'Members'),
      ),
    ];
    if (!room.isMember)
      actions.push(
        button(
          'Join',
          attempt(() => session.join(room.id)),
          'primary',
        ),
      );
    else if (session.conversation?.role === 'creator') {
      const remove = () => deleteRoomDialog(session, room);
      actions.push(
        h(
          'button',
          {
            type: 'button',
            class: 'icon-button',
            'aria-label': 'Delete room',
            title: 'Delete room',
            on: { click: remove },
          },
          icon('trash'),
        ),
      );
    } else
      actions.push(
        button(
          'Leave',
          attempt(() => session.leave(room.id)),
        ),
      );
    return actions;
  }

  // Messages ---------------------------------------------------------------------------------------------------------

  #render() {
    const { conversation } = this.session;
    if (!this.#shown || conversation !== this.#shown) return;
    const { timeline } = conversation;
    if (this.stuck) timeline.trim();
    const bottomPx = this.scroll.scrollHeight - this.scroll.scrollTop;
    const readers = readersBySeq(conversation, timeline.lastSeq);
    reconcile(
      this.list,
      timeline.items(this.session.me.userId).map((item) => this.items.item(item, readers)),
    );
    this.older.hidden = !timeline.hasOlder;
    this.list.classList.toggle('is-empty', timeline.isLoaded && timeline.length === 0);
    if (this.stuck) this.#toBottom();
    else if (timeline.firstSeq !== this.firstSeq) this.scroll.scrollTop = this.scroll.scrollHeight - bottomPx;
    this.firstSeq = timeline.firstSeq;
    this.#renderTyping(conversation);
    this.#announceNewest(conversation);
    this.#markRead();
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

  /** Let screen readers announce live messages, but not loaded history. */
  #announceNewest({ timeline }) {
    const { me, people } = this.session;
    const before = this.#announcedSeq;
    this.#announcedSeq = Math.max(timeline.lastSeq, before);
    const newest = timeline.newest;
    if (before && newest && newest.seq > before && newest.userId !== me.userId)
      announce(`${people.name(newest.userId)}: ${newest.text}`);
  }

  // Scrolling --------------------------------------------------------------------------------------------------------

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroll;
    this.stuck = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    this.jump.hidden = this.stuck;
    if (scrollTop < NEAR_TOP_PX) this.#loadOlder();
    this.#markRead();
  }

  #loadOlder() {
    const { conversation, tell } = this.session;
    if (conversation?.timeline.isLoaded) conversation.loadOlder().catch((error) => tell(error.message, 'error'));
  }

  #toBottom() {
    this.stuck = true;
    if (!this.scroll) return;
    this.jump.hidden = true;
    this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  /** Mark the messages as read if the page is visible and scrolled to the bottom. */
  #markRead() {
    const { conversation } = this.session;
    const isSeen = this.root.offsetParent !== null && document.visibilityState === 'visible';
    if (conversation && conversation === this.#shown && this.stuck && isSeen) conversation.markRead();
  }
}

function countsOf(room) {
  const counts = `${room.type} · ${counted(room.memberCount, 'member')} · ${room.activeNow} online`;
  return room.description ? `${counts} · ${room.description}` : counts;
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
