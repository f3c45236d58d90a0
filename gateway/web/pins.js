/** Pinned messages of one room. */

import { Observable, soon } from './changes.js';
import { changedBy, messageOf } from './message_model.js';

const PINS_MAX = 50; // as many as a room may have
const RELOAD_DELAY_MS = 300;

export class Pins extends Observable {
  entries = []; // newest pin first: {message, by, atMs}
  #loads = 0; // requests under way

  /** `timeline` is that of the room. */
  constructor(api, roomId, timeline) {
    super();
    Object.assign(this, { api, roomId, timeline });
    this.reloadSoon = soon(() => this.load().catch(() => {}), RELOAD_DELAY_MS);
  }

  async load() {
    const asOfRev = this.timeline.rev;
    this.#loads += 1;
    try {
      const pins = await this.api.pins(this.roomId, { limit: PINS_MAX });
      const entries = pins.map(({ message, by, at }) => ({
        message: this.timeline.upToDate(messageOf(message), asOfRev),
        by,
        atMs: Date.parse(at),
      }));
      this.entries = entries.filter(({ message }) => !message.deletedAtMs);
    } finally {
      this.#loads -= 1;
    }
    this.changed();
  }

  /** Drop the list, before it is loaded again. */
  clear() {
    this.entries = [];
    this.changed();
  }

  has(messageId) {
    return this.entries.some(({ message }) => message.id === messageId);
  }

  /** Pin a message. Throws the server's error. */
  async pin(messageId) {
    await this.api.pin(this.roomId, messageId);
    await this.load();
  }

  /** Unpin a message. Throws the server's error. */
  async unpin(messageId) {
    await this.api.unpin(this.roomId, messageId);
    this.#remove(messageId);
  }

  /** Process a change of the room's log. */
  take(change) {
    const { type, data } = change;
    if (type === 'chat:deleted' || (type === 'chat:pinned' && !data.pinned)) this.#remove(data.messageId);
    else if (type === 'chat:updated') this.#update(change);
    const isOutdated = type === 'chat:pinned' && (data.pinned || this.#loads > 0);
    if (isOutdated) this.reloadSoon();
  }

  #update(change) {
    if (!this.has(change.data.messageId)) return;
    this.entries = this.entries.map((entry) => ({ ...entry, message: changedBy(entry.message, change) }));
    this.changed();
  }

  #remove(messageId) {
    if (!this.has(messageId)) return;
    this.entries = this.entries.filter(({ message }) => message.id !== messageId);
    this.changed();
  }
}
