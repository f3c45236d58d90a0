/**
 * Message composer. Enter sends, Shift+Enter inserts a line break, Escape ends a reply or an edit, arrow up in an empty
 * field edits the last own message; each room keeps its own draft.
 */

import { ATTACHMENTS_MAX, attachmentChips, attachmentOf } from './attachments.js';
import { announce, h } from './dom.js';
import { Draft } from './draft.js';
import { icon } from './icons.js';
import { MentionList } from './mention_list.js';
import { excerptOf } from './message_model.js';
import { ROOM, mentionsIn } from './message_text.js';
import { mayEdit, isModerator } from './permissions.js';
import { composeBar } from './reply_preview.js';

const TEXT_MAX_BYTES = 60_000; // a frame is limited to 64 KB
const MENTIONS_MAX = 20;
const IDLE_MS = 4000;

const utf8 = new TextEncoder();

const quoteOf = ({ id, userId, text, changedRev }) => ({ messageId: id, userId, text: excerptOf(text), rev: changedRev });

export class Composer {
  #idle = null;
  #editing = null; // the message whose text is in the field
  #chosen = new Map(); // name -> userId of inserted mentions: two members may have one name

  /** `onSent` is called when a message has been queued, `onEmptied` when an edit leaves no text. */
  constructor(session, { onSent, onEmptied }) {
    Object.assign(this, { session, onSent, onEmptied });
    this.conversation = session.conversation;
    this.draft = this.conversation?.draft ?? new Draft();
    this.text = h('textarea', {
      id: 'composer-text',
      rows: '1',
      'aria-label': 'Message',
      placeholder: 'Message',
      enterkeyhint: 'send',
    });
    this.mentions = new MentionList(
      this.text,
      session.people,
      () => this.#candidates(),
      ({ name, userId }) => {
        this.#chosen.set(name, userId);
        this.#typed();
      },
    );
    this.problem = h('p', { class: 'field-error', role: 'alert' });
    this.bar = h('div', { class: 'compose-bar', hidden: true });
    this.chips = h('ul', { class: 'attachment-chips', 'aria-label': 'Attachments', hidden: true });
    this.button = h('button', { type: 'submit', class: 'send', 'aria-label': 'Send' }, icon('send'));
    this.element = h(
      'form',
      { class: 'composer' },
      this.problem,
      this.mentions.element,
      h('div', { class: 'compose-frame' }, this.bar, this.chips, h('div', { class: 'composer-row' }, this.text, this.button)),
    );
    this.#listen();
    this.#show();
  }

  #listen() {
    this.element.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.text.addEventListener('keydown', (event) => this.#key(event));
    this.text.addEventListener('input', () => this.#typed());
    this.text.addEventListener('paste', (event) => this.#paste(event));
    this.text.addEventListener('blur', () => this.conversation?.stopTyping());
  }

  render() {
    const { session } = this;
    this.#followDraft();
    const partner = session.draftTo ?? session.rooms.partner(session.rooms.open);
    const room = session.rooms.open;
    const hint = room && !room.isMember ? ' (the first message joins)' : '';
    const to = partner ? session.people.name(partner) : room?.name;
    this.text.placeholder = `Message ${to ?? ''}${hint}`;
  }

  /** Answer a message. */
  reply(message) {
    this.draft.reply(message);
    this.#begin(`Reply to ${this.session.people.name(message.userId)}. Escape cancels.`);
  }

  /** Change the text of an own message. */
  edit(message) {
    this.draft.edit(message);
    this.#begin('Editing your message. Escape cancels.');
  }

  #begin(words) {
    this.#show();
    this.text.focus();
    this.text.setSelectionRange(this.text.value.length, this.text.value.length);
    announce(words);
  }

  #cancel() {
    const what = this.draft.editing ? 'Edit cancelled' : 'Reply cancelled';
    this.draft.stopEditing();
    this.draft.replyTo = null;
    this.#show();
    this.text.focus();
    announce(what);
  }

  /** Show what has happened to the message that is answered or edited. */
  #followDraft() {
    if (this.#editing && !this.draft.editing) {
      this.#show();
      announce('The message that you were editing was deleted.');
    } else if (this.#barVersion() !== this.bar.dataset.version) this.#showBar();
  }

  /** Show the draft. */
  #show() {
    const { draft } = this;
    this.#editing = draft.editing;
    this.text.value = draft.text;
    this.problem.textContent = '';
    this.#showBar();
    this.#showChips();
    this.button.ariaLabel = draft.editing ? 'Save' : 'Send';
  }

  #barVersion() {
    const { replyTo, editing } = this.draft;
    const message = editing ?? replyTo;
    return message ? JSON.stringify([Boolean(editing), message.id, message.text, message.deletedAtMs]) : '';
  }

  #showBar() {
    const hadFocus = this.bar.contains(document.activeElement);
    this.bar.replaceChildren(...composeBar(this.draft, this.session.people, () => this.#cancel()));
    this.bar.dataset.version = this.#barVersion();
    this.bar.hidden = !this.bar.firstChild;
    if (hadFocus) (this.bar.querySelector('button') ?? this.text).focus();
  }

  #showChips() {
    const { draft } = this;
    const remove = (index) => {
      const [gone] = draft.attachments.splice(index, 1);
      this.#showChips();
      this.text.focus();
      announce(`${gone.name} removed`);
    };
    this.chips.replaceChildren(...attachmentChips(draft.editing ? [] : draft.attachments, remove));
    this.chips.hidden = !this.chips.firstChild;
  }

  // Input ------------------------------------------------------------------------------------------------------------

  #key(event) {
    if (event.isComposing || this.mentions.key(event)) return;
    const { draft } = this;
    if (event.key === 'Escape' && (draft.editing || draft.replyTo)) {
      event.preventDefault();
      this.#cancel();
    } else if (event.key === 'ArrowUp' && !this.text.value && !draft.editing) this.#editLast(event);
    else if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.#send();
    }
  }

  #editLast(event) {
    const last = this.conversation?.timeline.lastOwn();
    if (!last || !mayEdit(last, this.session.me.userId)) return;
    event.preventDefault();
    this.edit(last);
  }

  #typed() {
    this.problem.textContent = '';
    this.draft.text = this.text.value;
    if (!this.conversation) return;
    clearTimeout(this.#idle);
    if (!this.text.value.trim() || this.draft.editing) {
      this.conversation.stopTyping();
      return;
    }
    this.conversation.type();
    this.#idle = setTimeout(() => this.conversation.stopTyping(), IDLE_MS);
  }

  /** Attach a pasted address instead of inserting it. */
  #paste(event) {
    const attachment = attachmentOf(event.clipboardData?.getData('text/plain') ?? '');
    const { draft } = this;
    if (!attachment || draft.editing || draft.attachments.length >= ATTACHMENTS_MAX) return;
    event.preventDefault();
    draft.attachments.push(attachment);
    this.#showChips();
    announce(`${attachment.name} attached`);
  }

  // Mentions ---------------------------------------------------------------------------------------------------------

  /** Return the users who may be mentioned: members, in public rooms everybody known, and the whole room. */
  #candidates() {
    const { session, conversation } = this;
    if (!conversation) return [];
    const { people, me } = session;
    const ids = new Set(conversation.members.map(({ userId }) => userId));
    if (conversation.room?.type === 'public') for (const id of people.all()) ids.add(id);
    ids.delete(me.userId);
    const names = [...ids].map((userId) => ({ userId, name: people.name(userId) }));
    const all = isModerator(conversation.role) && !conversation.isDirect;
    return all ? [...names, { userId: ROOM, name: ROOM }] : names;
  }

  /** Return the mentions in a text as the frame names them. */
  #mentionsOf(text, kept = []) {
    const { people } = this.session;
    const chosen = [...this.#chosen].map(([name, userId]) => ({ name, userId }));
    const known = kept.map((userId) => ({ userId, name: people.name(userId) }));
    const found = mentionsIn(text, [...chosen, ...known, ...this.#candidates()]).map(({ userId }) => userId);
    const mentions = [...new Set(found)].filter((id) => id !== ROOM).slice(0, MENTIONS_MAX);
    return { mentions, mentionRoom: found.includes(ROOM) };
  }

  #extrasOf(text) {
    const { replyTo, attachments } = this.draft;
    const { mentions, mentionRoom } = this.#mentionsOf(text);
    return {
      ...(replyTo && { replyTo: replyTo.id, quote: quoteOf(replyTo) }),
      ...(mentions.length > 0 && { mentions }),
      ...(mentionRoom && { mentionRoom }),
      ...(attachments.length > 0 && { attachments }),
    };
  }

  // Sending ----------------------------------------------------------------------------------------------------------

  async #send() {
    const text = this.text.value.trim();
    const { draft, conversation } = this;
    if (utf8.encode(text).length > TEXT_MAX_BYTES) {
      this.problem.textContent = 'This message is too long. The limit is 60,000 bytes.';
      return;
    }
    clearTimeout(this.#idle);
    if (draft.editing) await this.#save(text);
    else if (!text && !draft.attachments.length) return;
    else if (conversation) {
      const extras = this.#extrasOf(text);
      this.#empty();
      conversation.send(text, extras);
      this.onSent();
    } else await this.#sendFirst(text);
  }

  async #sendFirst(text) {
    this.button.disabled = true;
    try {
      await this.session.sendFirst(text, this.#extrasOf(text));
      this.#empty();
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      this.button.disabled = false;
    }
  }

  /** Save an edit. A refusal leaves it open. */
  async #save(text) {
    const { draft, conversation } = this;
    const message = draft.editing;
    if (!text && !message.attachments.length) {
      this.onEmptied(message);
      return;
    }
    if (text !== message.text) {
      this.button.disabled = true;
      try {
        await conversation.edit(message.id, text, this.#mentionsOf(text, message.mentions).mentions);
        announce('Message edited');
      } catch (error) {
        this.problem.textContent = `Not saved: ${error.message}`;
        return;
      } finally {
        this.button.disabled = false;
      }
    }
    if (draft.editing?.id !== message.id) return; // the user has moved on
    draft.stopEditing();
    this.#show();
  }

  #empty() {
    this.draft.clear();
    this.#show();
  }
}
