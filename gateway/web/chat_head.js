/** Head of the open room: name, counts, and the room's actions. */

import { h, reconcile, setText } from './dom.js';
import { counted } from './format.js';
import { icon } from './icons.js';
import { deleteRoomDialog, membersDialog } from './room_dialogs.js';

export class ChatHead {
  /** `acts`: `{back(), pins(), search()}`. */
  constructor(session, acts) {
    Object.assign(this, { session, acts });
    this.sign = h('span', { class: 'chat-sign' });
    this.title = h('h2', { class: 'chat-title' });
    this.subtitle = h('p', { class: 'muted small' });
    this.actions = h('div', { class: 'chat-actions' });
    this.element = h(
      'div',
      { class: 'chat-head' },
      iconButton('back', 'Back to the rooms', acts.back, 'back'),
      this.sign,
      h('div', { class: 'chat-names' }, this.title, this.subtitle),
      this.actions,
    );
  }

  /** Show a room, or the user `partner` of a direct one, which need not exist yet. */
  render(room, partner) {
    const { people, conversation } = this.session;
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
      version: `${room?.id} ${room?.isMember} ${conversation?.role} ${partner} ${conversation?.pins.entries.length}`,
      make: () => h('div', { class: 'chat-actions' }, room ? this.#actions(room, conversation) : []),
    };
    reconcile(this.actions, [actions]);
  }

  #actions(room, conversation) {
    const { session } = this;
    const shared = [iconButton('search', 'Search messages', this.acts.search), this.#pins(conversation)];
    if (room.directUserIds) return shared;
    const attempt = (work) => () => work().catch((error) => session.notify(error.message, 'error'));
    const members = h(
      'button',
      {
        type: 'button',
        class: 'button small',
        'aria-label': 'Members',
        on: { click: () => membersDialog(session, conversation) },
      },
      icon('group'),
      h('span', { class: 'button-text' }, 'Members'),
    );
    return [...shared, members, this.#belonging(room, conversation, attempt)];
  }

  /** Build the button that joins, leaves or deletes the room. */
  #belonging(room, conversation, attempt) {
    const { session } = this;
    if (!room.isMember) {
      const join = attempt(() => session.join(room.id));
      return h('button', { type: 'button', class: 'button small primary', on: { click: join } }, 'Join');
    }
    if (conversation?.role === 'creator')
      return iconButton('trash', 'Delete room', () => deleteRoomDialog(session, room));
    const leave = attempt(() => session.leave(room.id));
    return h('button', { type: 'button', class: 'button small', on: { click: leave } }, 'Leave');
  }

  #pins(conversation) {
    const count = conversation?.pins.entries.length ?? 0;
    if (!count) return null;
    return h(
      'button',
      {
        type: 'button',
        class: 'button small',
        'aria-label': `Pinned messages, ${count}`,
        title: 'Pinned messages',
        'aria-haspopup': 'dialog',
        on: { click: this.acts.pins },
      },
      icon('pin'),
      h('span', { class: 'numbers pin-count' }, String(count)),
    );
  }
}

function iconButton(sign, label, act, more = '') {
  return h(
    'button',
    { type: 'button', class: `icon-button ${more}`.trimEnd(), 'aria-label': label, title: label, on: { click: act } },
    icon(sign),
  );
}

function countsOf(room) {
  const counts = `${room.type} · ${counted(room.memberCount, 'member')} · ${room.activeNow} online`;
  return room.description ? `${counts} · ${room.description}` : counts;
}
