/** Rooms visible to the user: search results, read positions, and the open room. */

import { Changing, soon } from './changes.js';

const PAGE_ROOMS = 100;
const LIST_PAGES_MAX = 3;
const REFRESH_DELAY_MS = 1500;

export class Rooms extends Changing {
  #rooms = new Map();
  #found = null; // ids of the search results, in order; null without a search
  #searches = 0;
  #deleted = new Set(); // ids, so that a pending answer does not bring them back
  openId = null;
  isLoaded = false;

  /** `me` is the id of the user. */
  constructor(api, me) {
    super();
    this.api = api;
    this.me = me;
    /** Reload the list soon: only the server knows the online counts. */
    this.refreshSoon = soon(() => this.refresh().catch(() => {}), REFRESH_DELAY_MS);
  }

  /** Load the list: the user's own rooms and public rooms, the most active first. */
  async refresh() {
    const seen = new Set();
    for (let page = 1; page <= LIST_PAGES_MAX; page += 1) {
      const { data, pagination } = await this.api.rooms({ page, limit: PAGE_ROOMS });
      for (const room of data) {
        this.take(room);
        seen.add(room.id);
      }
      if (page >= pagination.pages) {
        for (const id of this.#rooms.keys()) if (!seen.has(id) && id !== this.openId) this.#rooms.delete(id);
        break;
      }
    }
    this.isLoaded = true;
    this.changed();
  }

  /** Store a room from the server. Newer values from live events are kept. */
  take(room) {
    if (this.#deleted.has(room.id)) return room;
    const known = this.#rooms.get(room.id);
    const lastSeq = Math.max(room.lastSeq, known?.lastSeq ?? 0);
    const readSeq = Math.max(room.lastSeq - room.unreadCount, known?.isMember ? known.readSeq : 0);
    this.#rooms.set(room.id, { ...room, lastSeq, readSeq, isMember: room.isMember });
    this.changed();
    return this.#rooms.get(room.id);
  }

  get(id) {
    return this.#rooms.get(id);
  }

  has(id) {
    return this.#rooms.has(id);
  }

  get open() {
    return this.#rooms.get(this.openId) ?? null;
  }

  unread(room) {
    return room.isMember ? Math.max(room.lastSeq - room.readSeq, 0) : 0;
  }

  get totalUnread() {
    return this.joined().reduce((sum, room) => sum + this.unread(room), 0);
  }

  /** Return the rooms that the user is a member of. */
  joined() {
    return [...this.#rooms.values()].filter((room) => room.isMember);
  }

  /** Return the other user of a direct room, or null. */
  partner(room) {
    return room?.directUserIds?.find((id) => id !== this.me) ?? (room?.directUserIds ? this.me : null);
  }

  /** Return the direct room with a user, or undefined. */
  directWith(userId) {
    return this.joined().find((room) => room.directUserIds && this.partner(room) === userId) ?? null;
  }

  /** Return the content of the list: `{joined, direct, others}`, or `found` during a search. */
  sections() {
    if (this.#found) return { found: this.#found.map((id) => this.#rooms.get(id)).filter(Boolean) };
    const all = [...this.#rooms.values()].sort((a, b) => activeAt(b).localeCompare(activeAt(a)));
    return {
      joined: all.filter((room) => room.isMember && !room.directUserIds),
      direct: all.filter((room) => room.isMember && room.directUserIds),
      others: all.filter((room) => !room.isMember),
    };
  }

  /** Search by word prefixes of the name; an empty text ends the search. Outdated answers are dropped. */
  async search(text) {
    this.#searches += 1;
    const mine = this.#searches;
    if (!text) {
      this.#found = null;
      this.changed();
      return;
    }
    const { data } = await this.api.rooms({ q: text, limit: PAGE_ROOMS });
    if (mine !== this.#searches) return;
    for (const room of data) this.take(room);
    this.#found = data.map((room) => room.id);
    this.changed();
  }

  /** Open a room, or close the open one with null. */
  select(id) {
    this.openId = id;
    this.changed();
  }

  /** Process a live message. */
  message({ chatroomId, userId, seq, timestamp }) {
    const room = this.#rooms.get(chatroomId);
    if (!room) return;
    if (seq > room.lastSeq) {
      room.lastSeq = seq;
      room.lastMessageAt = timestamp;
    }
    if (userId === this.me) room.readSeq = Math.max(room.readSeq, seq);
    this.changed();
  }

  /** Store the user's read position, set here or on another device. */
  read(id, seq) {
    const room = this.#rooms.get(id);
    if (!room || seq <= room.readSeq) return false;
    room.readSeq = seq;
    this.changed();
    return true;
  }

  /** Change fields of a room. */
  change(id, fields) {
    const room = this.#rooms.get(id);
    if (!room) return;
    Object.assign(room, fields);
    this.changed();
  }

  /** Remove a room that was deleted, for good. */
  deleted(id) {
    this.#deleted.add(id);
    this.drop(id);
  }

  /** Remove a room that is no longer visible to the user. */
  drop(id) {
    this.#rooms.delete(id);
    if (this.openId === id) this.openId = null;
    this.changed();
  }
}

const activeAt = (room) => room.lastMessageAt ?? room.createdAt;
