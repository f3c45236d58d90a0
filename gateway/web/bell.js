/** Notification bell with its unread count, and the panel that it opens. */

import { openDialog } from './dialogs.js';
import { h, reconcile } from './dom.js';
import { agoOf, fullTimeOf } from './format.js';
import { icon } from './icons.js';
import { noticeLine } from './reply_preview.js';

export class Bell {
  constructor(button, session) {
    Object.assign(this, { button, session });
    this.count = h('span', { class: 'badge', hidden: true });
    button.replaceChildren(icon('bell'), this.count);
    button.addEventListener('click', () => this.#open());
    session.inbox.onChange(() => this.#render());
    this.#render();
  }

  #render() {
    const { unread } = this.session.inbox;
    this.count.textContent = unread > 99 ? '99+' : String(unread);
    this.count.hidden = unread === 0;
    this.button.ariaLabel = unread ? `Notifications, ${unread} unread` : 'Notifications';
  }

  #open() {
    const { inbox, notify } = this.session;
    const list = h('ul', { class: 'inbox' });
    const nothing = h('p', { class: 'muted hint' }, 'Nothing here yet. Set a price alert, and it will ring here.');
    const attempt = (work) => () => work().catch((error) => notify(error.message, 'error'));
    const readAll = h(
      'button',
      { type: 'button', class: 'button small', on: { click: attempt(() => inbox.readAll()) } },
      'Mark all as read',
    );
    const row = (entry) => ({
      key: entry.id,
      version: `${entry.isRead}${entry.message}`,
      make: () =>
        h(
          'li',
          {},
          h(
            'button',
            {
              type: 'button',
              class: `notice ${entry.priority}${entry.isRead ? '' : ' is-unread'}`,
              on: { click: attempt(() => inbox.read(entry)) },
            },
            h(
              'span',
              { class: 'notice-title' },
              entry.title,
              entry.isRead ? null : h('span', { class: 'visually-hidden' }, ' (unread)'),
            ),
            h(
              'time',
              { class: 'muted small', datetime: new Date(entry.atMs).toISOString(), title: fullTimeOf(entry.atMs) },
              agoOf(entry.atMs),
            ),
            h('span', { class: 'notice-text' }, entry.messageId ? noticeLine(entry.message) : entry.message),
          ),
        ),
    });
    const render = () => {
      reconcile(list, inbox.entries.map(row));
      nothing.hidden = inbox.entries.length > 0;
      readAll.hidden = inbox.unread === 0;
    };
    const ends = [inbox.onChange(render), this.session.mentions.follow()];
    const onClose = () => ends.forEach((end) => end());
    render();
    openDialog({ title: 'Notifications', kind: 'side', fill: () => [readAll, nothing, list], onClose });
  }
}
