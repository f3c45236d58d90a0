/** Texts of mentions in the inbox: they may be edited or deleted in rooms that are not open. */

const WATCHED_MAX = 20; // rooms of the newest mentions

export class MentionWatch {
  /** `isLive(roomId)` returns whether a room is subscribed to anyway. */
  constructor({ api, connection, inbox }, isLive) {
    Object.assign(this, { api, connection, inbox, isLive });
  }

  /** Load the messages of all mentions in a room again, and take over their texts. */
  async check(roomId) {
    for (const { messageId } of this.inbox.mentionsIn(roomId)) {
      try {
        this.inbox.refresh(await this.api.message(roomId, messageId));
      } catch {
        // it stays as it is, until the inbox is loaded again
      }
    }
  }

  /** Follow the rooms of the mentions while they are displayed. Returns a function that ends it. */
  follow() {
    const rooms = this.inbox.mentionedRooms().slice(0, WATCHED_MAX);
    for (const id of rooms) this.connection.follow(id);
    this.inbox.load().catch(() => {}); // the next reconnect retries
    return () => {
      for (const id of rooms) if (!this.isLive(id)) this.connection.unfollow(id);
    };
  }
}
