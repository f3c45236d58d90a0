/** The user's draft in one room: a message, a reply, or the new text of a message. */

import { changedBy } from './message_model.js';

export class Draft {
  text = '';
  replyTo = null; // the message that is answered
  editing = null; // the message whose text is being changed
  attachments = [];
  #setAside = ''; // the text that an edit interrupted

  reply(message) {
    this.stopEditing();
    this.replyTo = message;
  }

  edit(message) {
    if (!this.editing) this.#setAside = this.text;
    this.editing = message;
    this.text = message.text;
    this.replyTo = null;
  }

  /** End an edit and bring the interrupted text back. */
  stopEditing() {
    if (!this.editing) return;
    this.editing = null;
    this.text = this.#setAside;
    this.#setAside = '';
  }

  /** Return the ids of the messages that the draft shows. */
  messageIds() {
    return [this.replyTo, this.editing].filter(Boolean).map(({ id }) => id);
  }

  /** Replace the stored copy of a message by the reloaded one. */
  refresh(message) {
    if (this.replyTo?.id === message.id) this.replyTo = message;
    if (this.editing?.id !== message.id) return;
    this.editing = message;
    if (message.deletedAtMs) this.stopEditing();
  }

  /** Process a change of the room's log. A deletion ends the edit of its message. */
  take(change) {
    if (this.replyTo) this.replyTo = changedBy(this.replyTo, change);
    if (!this.editing) return;
    this.editing = changedBy(this.editing, change);
    if (this.editing.deletedAtMs) this.stopEditing();
  }

  /** Empty the draft once its message is on its way. */
  clear() {
    Object.assign(this, { text: '', replyTo: null, attachments: [] });
  }
}
