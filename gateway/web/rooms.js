/** Rooms visible to the user: search results, unread messages, and the open room. */

import { Observable, soon } from './changes.js';
import {
  mentionsIn,
  noteActivity,
  noteMessage,
  noteRead,
  noteSubscribed,
  noteUnread,
  unknownCounts,
  unreadIn,
  withCounts,
} from './unread_counts.js';

const PAGE_ROOMS = 100;
const LIST_PAGES_MAX = 3;
const REFRESH_DELAY_MS = 1500;
const SUBSCRIBED_ROOMS_MAX = 200; // rooms in the answer to the subscription of `activity`
const MISSING_AT_ONCE = 4;
const MISSING_MAX = 100; // unlisted rooms with unread messages to load; others only count in the totals until active

export class Rooms extends Observable {
  #rooms = new Map();
  #unlisted = new Map(); // rooms of the user whose fields are not loaded: their counts
  #wanted = new Set(); // those of them to be listed
  #isLoadingWanted = false;
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
    this.#loadWanted();
  }

  /** Store a room from the server. Newer values from live events are kept. */
  take(room) {
    if (this.#deleted.has(room.id)) return room;
    this.#rooms.set(room.id, withCounts(room, this.#countsOf(room.id)));
    this.#unlisted.delete(room.id);
    this.#wanted.delete(room.id);
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
    return room.isMember ? unreadIn(room) : 0;
  }

  /** Return the number of unread messages that mention the user. */
  mentions(room) {
    return room.isMember ? mentionsIn(room) : 0;
  }

  /** Return the unread messages and mentions in all rooms of the user, listed or not: `{unread, mentions}`. */
  get totals() {
    const all = [...this.joined(), ...this.#unlisted.values()];
    const sum = (count) => all.reduce((total, room) => total + count(room), 0);
    return { unread: sum(unreadIn), mentions: sum(mentionsIn) };
  }

  /** Return the rooms that the user is a member of. */
  joined() {
    return [...this.#rooms.values()].filter((room) => room.isMember);
  }

  /** Return the other user of a direct room, or null. */
  partner(room) {
    return room?.directUserIds?.find((id) => id !== this.me) ?? (room?.directUserIds ? this.me : null);
  }

  /** Return the direct room with a user, or null. */
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
    noteMessage(room, seq, timestamp);
    if (userId === this.me) noteRead(room, seq);
    this.changed();
  }

  /** Store the user's read position, set here or on another device. */
  read(id, seq) {
    const room = this.#rooms.get(id);
    if (!room || !noteRead(room, seq)) return false;
    this.changed();
    return true;
  }

  // Activity ---------------------------------------------------------------------------------------------------------

  /** Process the answer to the subscription of `activity`. Throws the server's error if further counts do not load. */
  async takeSubscribed({ rooms, unreadTotal }) {
    if (rooms.length < SUBSCRIBED_ROOMS_MAX) this.#unlisted.clear(); // these are all
    for (const room of rooms) noteSubscribed(this.#recordOf(room.chatroomId), room);
    this.#wantUnread();
    const shown = rooms.reduce((sum, { unreadCount }) => sum + unreadCount, 0);
    if (unreadTotal <= shown) return;
    const answered = new Set(rooms.map(({ chatroomId }) => chatroomId));
    const found = (await this.api.unread()).rooms.filter(({ chatroomId }) => !answered.has(chatroomId));
    for (const counts of found) noteUnread(this.#recordOf(counts.chatroomId), counts);
    this.#wantUnread();
  }

  /** Process `room:activity`. Rooms that the list lacks are loaded. */
  active(rooms) {
    for (const room of rooms) {
      noteActivity(this.#recordOf(room.chatroomId), room);
      if (!this.has(room.chatroomId)) this.#wanted.add(room.chatroomId);
    }
    this.changed();
    this.#loadWanted();
  }

  /** Process `room:unread`. Returns whether unread mentions were deleted or edited away. */
  counted(counts) {
    const record = this.#recordOf(counts.chatroomId);
    const before = { unread: unreadIn(record), mentions: mentionsIn(record) };
    noteUnread(record, counts);
    this.changed();
    return mentionsIn(record) < before.mentions && unreadIn(record) >= before.unread;
  }

  #countsOf(id) {
    return this.#rooms.get(id) ?? this.#unlisted.get(id);
  }

  /** Return the counts of a room of the user. */
  #recordOf(id) {
    const known = this.#countsOf(id);
    if (known) known.isMember = true;
    else this.#unlisted.set(id, { ...unknownCounts(), isMember: true });
    return known ?? this.#unlisted.get(id);
  }

  #wantUnread() {
    const unread = [...this.#unlisted].filter(([, counts]) => unreadIn(counts) > 0);
    for (const [id] of unread.slice(0, MISSING_MAX)) this.#wanted.add(id);
    this.changed();
    this.#loadWanted();
  }

  /** Load the rooms that are to be listed. A failure is retried at the next event or refresh. */
  async #loadWanted() {
    if (!this.isLoaded || this.#isLoadingWanted) return;
    this.#isLoadingWanted = true;
    try {
      while (this.#wanted.size) {
        const some = [...this.#wanted].slice(0, MISSING_AT_ONCE);
        await Promise.all(some.map((id) => this.#loadRoom(id)));
      }
    } catch {
      // see above
    } finally {
      this.#isLoadingWanted = false;
    }
  }

  async #loadRoom(id) {
    try {
      this.take(await this.api.room(id));
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#unlisted.delete(id);
    }
    this.#wanted.delete(id);
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
    this.#unlisted.delete(id);
    this.#wanted.delete(id);
    if (this.openId === id) this.openId = null;
    this.changed();
  }
}

const activeAt = (room) => room.lastMessageAt ?? room.createdAt;
