/** Room list: search, sections, unread and online counts. */

import { h, reconcile, rove, whenReleased } from './dom.js';
import { counted, shortCount } from './format.js';
import { icon } from './icons.js';
import { newRoomDialog } from './room_dialogs.js';

const SEARCH_DELAY_MS = 200;
const BADGE_MAX = 99;
const TYPE_ICONS = { public: 'hash', private: 'lock', group: 'group' };

export class RoomList {
  #sections = new Map();

  constructor(root, session, show) {
    this.session = session;
    this.show = show;
    this.list = h('div', { class: 'room-sections' });
    root.replaceChildren(this.#head(), this.list);
    this.settle = rove(this.list, 'button.room');
    const render = () => whenReleased(this.list, () => this.#render());
    session.rooms.onChange(render);
    session.people.onChange(render);
    render();
  }

  #head() {
    const { rooms, notify } = this.session;
    let timer = null;
    this.search = h('input', {
      type: 'search',
      placeholder: 'Search rooms',
      'aria-label': 'Search rooms',
      autocomplete: 'off',
      spellcheck: 'false',
    });
    const search = () => rooms.search(this.search.value.trim()).catch((error) => notify(error.message, 'error'));
    this.search.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(search, SEARCH_DELAY_MS);
    });
    this.search.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.search.value) {
        this.search.value = '';
        search();
        event.stopPropagation();
      } else if (event.key === 'ArrowDown') {
        event.preventDefault();
        this.list.querySelector('button.room')?.focus();
      }
    });
    const create = () => newRoomDialog(this.session, this.show);
    return h(
      'div',
      { class: 'pane-head' },
      h('div', { class: 'search' }, this.search, h('kbd', { 'aria-hidden': 'true' }, 'Ctrl K')),
      h(
        'button',
        { type: 'button', class: 'icon-button', 'aria-label': 'New room', title: 'New room', on: { click: create } },
        icon('plus'),
      ),
    );
  }

  #render() {
    const { rooms } = this.session;
    const { found, joined = [], direct = [], others = [] } = rooms.sections();
    const parts = found
      ? [['found', found.length ? 'Found' : 'No matching rooms', found]]
      : [
          ['joined', 'Your rooms', joined],
          ['direct', 'Direct messages', direct],
          ['others', 'Discover', others],
        ];
    const shown = parts.filter(
      ([key, , list]) => list.length || key === 'found' || (key === 'joined' && rooms.isLoaded),
    );
    reconcile(
      this.list,
      shown.map(([key, title, list]) => this.#section(key, title, list.length === 0 && key === 'joined')),
    );
    for (const [key, , list] of shown)
      reconcile(
        this.#sections.get(key),
        list.map((room) => this.#row(room)),
      );
    this.settle();
    const { unread, mentions } = rooms.totals;
    const counts = mentions ? `(${unread}, @${mentions}) ` : unread ? `(${unread}) ` : '';
    document.title = `${counts}Realtime`;
  }

  #section(key, title, isEmpty) {
    return {
      key,
      version: `${title}${isEmpty}`,
      make: () => {
        const id = `section-${key}`;
        const list = h('ul', { class: 'room-list', 'aria-labelledby': id });
        this.#sections.set(key, list);
        const hint =
          isEmpty && h('p', { class: 'muted small hint' }, 'None yet: join one below, or create one with +.');
        return h('section', {}, h('h2', { class: 'section-title', id }, title), hint, list);
      },
    };
  }

  #row(room) {
    const { rooms, people } = this.session;
    const unread = rooms.unread(room);
    const mentions = rooms.mentions(room);
    const isOpen = rooms.openId === room.id;
    const partner = rooms.partner(room);
    const name = partner ? people.name(partner) : room.name;
    const online = partner ? (people.isOnline(partner) ? 'online' : 'offline') : `${shortCount(room.activeNow)} online`;
    const members = partner ? '' : ` · ${shortCount(room.memberCount)} member${room.memberCount === 1 ? '' : 's'}`;
    const version = JSON.stringify([
      unread,
      mentions,
      isOpen,
      name,
      online,
      members,
      room.type,
      room.isMember,
      partner && people.profile(partner).avatar,
    ]);
    const make = () => {
      const sign = partner
        ? people.avatar(partner, { dot: true })
        : h('span', { class: 'room-sign' }, icon(TYPE_ICONS[room.type] ?? 'hash'));
      const live = !partner && room.activeNow > 0;
      const button = h(
        'button',
        {
          type: 'button',
          class: `room${unread ? ' has-unread' : ''}`,
          tabindex: '-1',
          'aria-current': isOpen ? 'true' : null,
          on: { click: () => this.#open(room.id) },
        },
        sign,
        h(
          'span',
          { class: 'room-text' },
          h('span', { class: 'room-name' }, name),
          h('span', { class: `room-counts${live ? ' live' : ''}` }, online + members),
        ),
        mentions ? mentionBadge(mentions) : null,
        unread ? unreadBadge(unread) : null,
      );
      return h('li', {}, button);
    };
    return { key: room.id, version, make };
  }

  #open(id) {
    this.show('chat');
    this.session.open(id);
  }
}

function unreadBadge(count) {
  return h(
    'span',
    { class: 'badge' },
    count > BADGE_MAX ? `${BADGE_MAX}+` : String(count),
    h('span', { class: 'visually-hidden' }, ' unread'),
  );
}

/** Build the badge of a room in which the user is mentioned. Screen readers read it out as words. */
function mentionBadge(count) {
  const sign = count > BADGE_MAX ? `@${BADGE_MAX}+` : count > 1 ? `@${count}` : '@';
  const words = counted(count, 'mention');
  return h(
    'span',
    { class: 'mention-badge', title: `${words} of you` },
    h('span', { 'aria-hidden': 'true' }, sign),
    h('span', { class: 'visually-hidden' }, `${words} of you, `),
  );
}
