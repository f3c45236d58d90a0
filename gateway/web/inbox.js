/** Notifications of the signed-in user, for the bell and its panel. */

import { Changing } from './changes.js';

const SHOWN = 50;

export class Inbox extends Changing {
  entries = []; // newest first: {id, title, message, priority, atMs, isRead}
  unread = 0;

  constructor(api) {
    super();
    this.api = api;
  }

  async load() {
    const [{ data }, unread] = await Promise.all([this.api.notifications({ limit: SHOWN }), this.api.unreadCount()]);
    this.entries = data.map(entryOf);
    this.unread = unread;
    this.changed();
  }

  /** Add a live notification. Returns its entry, or null if it is already known. */
  take(data) {
    if (this.entries.some(({ id }) => id === data.id)) return null;
    const entry = entryOf(data);
    this.entries = [entry, ...this.entries].slice(0, SHOWN);
    this.unread += 1;
    this.changed();
    return entry;
  }

  async read(entry) {
    if (entry.isRead) return;
    await this.api.readNotification(entry.id);
    entry.isRead = true;
    this.unread = Math.max(this.unread - 1, 0);
    this.changed();
  }

  async readAll() {
    this.unread = (await this.api.readAll()).unreadCount;
    for (const entry of this.entries) entry.isRead = true;
    this.changed();
  }
}

function entryOf(raw) {
  const title = raw.title ?? raw.type?.replace(/[:._]/g, ' ') ?? 'News';
  const atMs = Date.parse(raw.createdAt ?? '') || Date.now();
  return {
    id: raw.id,
    title,
    message: raw.message ?? '',
    priority: raw.priority ?? 'medium',
    atMs,
    isRead: raw.read === true,
  };
}
