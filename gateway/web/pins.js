/** Pinned messages of one room. */

import { Changing, soon } from './changes.js';
import { messageOf } from './message_model.js';

const PINS_MAX = 50; // as many as a room may have
const RELOAD_DELAY_MS = 300;

export class Pins extends Changing {
  entries = []; // newest pin first: {message, by, atMs}

  constructor(api, roomId) {
    super();
    Object.assign(this, { api, roomId });
    this.reloadSoon = soon(() => this.load().catch(() => {}), RELOAD_DELAY_MS);
  }

  async load() {
    const pins = await this.api.pins(this.roomId, { limit: PINS_MAX });
    this.entries = pins.map(({ message, by, at }) => ({ message: messageOf(message), by, atMs: Date.parse(at) }));
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
  take({ type, data }) {
    if (type === 'chat:deleted' || (type === 'chat:pinned' && !data.pinned)) this.#remove(data.messageId);
    else if (type === 'chat:pinned' || (type === 'chat:updated' && this.has(data.messageId))) this.reloadSoon();
  }

  #remove(messageId) {
    if (!this.has(messageId)) return;
    this.entries = this.entries.filter(({ message }) => message.id !== messageId);
    this.changed();
  }
}
