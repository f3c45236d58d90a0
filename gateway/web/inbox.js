/** Notifications of the signed-in user, for the bell and its panel. */

import { Observable } from './changes.js';
import { excerptOf } from './message_model.js';

const SHOWN = 50;
const CHANGES_MAX = 200; // beyond that, the oldest are forgotten

export class Inbox extends Observable {
  entries = []; // newest first: {id, title, message, priority, atMs, isRead}; for a mention also {roomId, messageId}
  unread = 0;
  #texts = new Map(); // messageId -> its changed text; the server updates its copy in the inbox later or never

  constructor(api) {
    super();
    this.api = api;
  }

  async load() {
    const [{ data }, unread] = await Promise.all([this.api.notifications({ limit: SHOWN }), this.api.unreadCount()]);
    this.entries = data.map((raw) => this.#upToDate(entryOf(raw)));
    this.unread = unread;
    this.changed();
  }

  /** Add a live notification. Returns its entry, or null if it is already known. */
  take(data) {
    if (this.entries.some(({ id }) => id === data.id)) return null;
    const entry = this.#upToDate(entryOf(data));
    this.entries = [entry, ...this.entries].slice(0, SHOWN);
    this.unread += 1;
    this.changed();
    return entry;
  }

  /** Return the entry with this id, if it is loaded. */
  get(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  /** Process a change of a message: notifications of mentions show its beginning. */
  change({ type, data: { messageId, message } }) {
    if (type !== 'chat:updated' && type !== 'chat:deleted') return;
    this.#texts.delete(messageId);
    this.#texts.set(messageId, type === 'chat:deleted' ? '' : excerptOf(message));
    if (this.#texts.size > CHANGES_MAX) this.#texts.delete(this.#texts.keys().next().value);
    if (!this.entries.some((entry) => entry.messageId === messageId)) return;
    this.entries = this.entries.map((entry) => this.#upToDate(entry));
    this.changed();
  }

  /** Return the mentions in a room whose text is displayed. */
  mentionsIn(roomId) {
    return this.entries.filter((entry) => entry.roomId === roomId && entry.message !== '');
  }

  /** Return the ids of the rooms of all mentions whose text is displayed, the newest mention first. */
  mentionedRooms() {
    return [...new Set(this.entries.flatMap(({ roomId, message }) => (roomId && message ? roomId : [])))];
  }

  /** Replace the stored copy of a message by the reloaded one. */
  refresh({ id, message, deletedAt }) {
    this.change({ type: deletedAt ? 'chat:deleted' : 'chat:updated', data: { messageId: id, message } });
  }

  #upToDate(entry) {
    const text = this.#texts.get(entry.messageId);
    return text === undefined ? entry : { ...entry, message: text };
  }

  async read(entry) {
    if (entry.isRead) return;
    await this.api.readNotification(entry.id);
    for (const one of this.entries) if (one.id === entry.id) one.isRead = true;
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
  const about = raw.data ?? raw; // REST shows the data of the frame within the entry
  const mention = about.type === 'mention' ? { roomId: about.chatroomId, messageId: about.messageId } : {};
  return {
    id: raw.id,
    title,
    message: raw.message ?? '',
    priority: raw.priority ?? 'medium',
    atMs,
    isRead: raw.read === true,
    ...mention,
  };
}
