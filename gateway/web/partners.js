/** Names and presence of the other users of direct rooms, which the room list shows. */

const PARTNERS_MAX = 100; // in one request

export class Partners {
  #met = new Set(); // rooms whose other user is known

  constructor({ api, people, rooms }) {
    Object.assign(this, { api, people, rooms });
    rooms.onChange(() => this.#meetNew());
  }

  /** Load who is online: the server announces it in subscribed rooms only. */
  async refresh() {
    const direct = this.rooms.sections().direct ?? [];
    await this.people.ask(direct.slice(0, PARTNERS_MAX).map((room) => this.rooms.partner(room)));
  }

  #meetNew() {
    for (const { id, directUserIds } of this.rooms.joined()) if (directUserIds && !this.#met.has(id)) this.#meet(id);
  }

  async #meet(id) {
    this.#met.add(id);
    try {
      for (const { userId, user, status } of (await this.api.members(id, { limit: 2 })).data) {
        this.people.learn(userId, user);
        this.people.seen({ userId, status });
      }
    } catch {
      this.#met.delete(id); // the next change retries
    }
  }
}
