/** The rooms that this user may see: what the list shows, how far each is read, which one is open. */

import { Changing, soon } from './changes.js';

const PAGE_ROOMS = 100;
const LIST_PAGES_MAX = 3;
const REFRESH_DELAY_MS = 1500;

export class Rooms extends Changing {
  #rooms = new Map();
  #found = null; // ids that a search has found, in its order
  #searches = 0;
  openId = null;
  isLoaded = false;

  /** `me`: the user's id. */
  constructor(api, me) {
    super();
    this.api = api;
    this.me = me;
    /** Ask for the list again, soon: counts of who is here are known to the server alone. */
    this.refreshSoon = soon(() => this.refresh().catch(() => {}), REFRESH_DELAY_MS);
  }

  /** Load the list: rooms of the user's own and public ones, the most active first. */
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

  /** Take in a room as the server shows it; what live events told meanwhile stays. */
  take(room) {
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

  /** Every room that the user is a member of. */
  joined() {
    return [...this.#rooms.values()].filter((room) => room.isMember);
  }

  /** The other user of a direct room, or null. */
  partner(room) {
    return room?.directUserIds?.find((id) => id !== this.me) ?? (room?.directUserIds ? this.me : null);
  }

  /** The direct room with this user, if there is one. */
  directWith(userId) {
    return this.joined().find((room) => room.directUserIds && this.partner(room) === userId) ?? null;
  }

  /** What the list shows: `{joined, direct, others}`, or `found` while a search stands. */
  sections() {
    if (this.#found) return { found: this.#found.map((id) => this.#rooms.get(id)).filter(Boolean) };
    const all = [...this.#rooms.values()].sort((a, b) => activeAt(b).localeCompare(activeAt(a)));
    return {
      joined: all.filter((room) => room.isMember && !room.directUserIds),
      direct: all.filter((room) => room.isMember && room.directUserIds),
      others: all.filter((room) => !room.isMember),
    };
  }

  /** Search by the beginnings of words of the name; an empty text ends it. An answer that is overtaken is dropped. */
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

  /** Open a room; null opens none. */
  select(id) {
    this.openId = id;
    this.changed();
  }

  /** A message came. */
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

  /** The user has read up to `seq`, here or elsewhere. */
  read(id, seq) {
    const room = this.#rooms.get(id);
    if (!room || seq <= room.readSeq) return false;
    room.readSeq = seq;
    this.changed();
    return true;
  }

  /** Change what is known of a room. */
  change(id, fields) {
    const room = this.#rooms.get(id);
    if (!room) return;
    Object.assign(room, fields);
    this.changed();
  }

  /** The room is gone, or not ours to see any more. */
  drop(id) {
    this.#rooms.delete(id);
    if (this.openId === id) this.openId = null;
    this.changed();
  }
}

const activeAt = (room) => room.lastMessageAt ?? room.createdAt;
