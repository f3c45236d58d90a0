/**
 * Actions on a message: a toolbar on the message under the pointer or focus, a sheet on long press. The list of messages
 * is one tab stop; arrows, Home and End move within it, Enter or Tab reaches the toolbar and Escape leaves it.
 */

import { sentence } from './api.js';
import { confirmDialog, openDialog } from './dialogs.js';
import { announce, h } from './dom.js';
import { icon } from './icons.js';
import { linkTo } from './links.js';
import { messageSheet, onLongPress } from './message_sheet.js';
import { mayDelete, mayEdit, mayPin } from './permissions.js';
import { pickReaction } from './reaction_picker.js';
import { oneLine, shortened } from './reply_preview.js';

const STOPS = 'li.message[data-seq]';

export class MessageActions {
  #bar = null; // the toolbar; it lies in the message that it acts on
  #stop = null; // the message that Tab reaches
  #isRendering = false; // replaced messages lose the focus for a moment
  #about = null; // {dialog, messageId}: shows the text of a message
  #held = null; // the button of the toolbar that had the focus before the list was rendered

  /** `list` holds the messages; `acts`: `{reply(message), edit(message)}`. */
  constructor(session, list, acts) {
    Object.assign(this, { session, list, acts });
    list.addEventListener('pointerover', (event) => event.pointerType !== 'touch' && this.#offer(event.target));
    list.addEventListener('pointerleave', () => this.#hide());
    list.addEventListener('focusin', (event) => this.#focused(event.target));
    list.addEventListener('focusout', (event) => this.#left(event.relatedTarget));
    list.addEventListener('keydown', (event) => this.#key(event));
    onLongPress(list, STOPS, (item) => this.#sheet(item));
  }

  /** Note, before the list is rendered, which button of the toolbar has the focus. */
  rendering() {
    const { activeElement } = document;
    this.#held = this.#bar?.element.contains(activeElement) ? activeElement : null;
    this.#isRendering = true;
  }

  /** Bring the tab stop and the toolbar back after the list has been rendered. */
  rendered() {
    const held = this.#held;
    this.#isRendering = false;
    if (this.#about && this.session.conversation?.timeline.get(this.#about.messageId)?.deletedAtMs) {
      this.#about.dialog.close();
      this.#about = null;
    }
    if (!this.list.contains(document.activeElement)) this.#settle(this.#stops().at(-1));
    else if (!this.#stop?.isConnected) this.#settle(this.#itemOf(this.#stop?.dataset.seq) ?? this.#stops().at(-1));
    if (!this.#bar) return;
    const { element, seq, signature } = this.#bar;
    const item = element.isConnected ? element.parentElement : this.#itemOf(seq);
    if (!item) {
      this.#remove();
      return;
    }
    if (signature === signatureOf(this.#toolsOf(this.#messageOf(item)))) {
      if (!element.isConnected) item.append(element); // the same one, to which a dialog may return the focus
      if (held) held.focus({ preventScroll: true });
      return;
    }
    this.#remove();
    this.#show(item);
    if (held) (this.#bar?.element.querySelector(`[data-act="${held.dataset.act}"]`) ?? item).focus();
  }

  /** Open the picker for a message. */
  pick(message, anchor) {
    const react = (emoji) => this.#react(message, emoji);
    const closed = () => {
      if (document.activeElement === document.body) this.#itemOf(message.seq)?.focus({ preventScroll: true });
    };
    pickReaction(anchor, react, () => setTimeout(closed));
  }

  /** Add or remove a reaction, and show failures. */
  toggle(message, emoji) {
    this.#react(message, emoji).catch((error) => this.session.notify(error.message, 'error'));
  }

  async #react(message, emoji) {
    try {
      await this.session.conversation.toggleReaction(this.#now(message), emoji);
    } catch (error) {
      throw new Error(sentence(error.message));
    }
  }

  /** Ask whether to delete a message. */
  remove(message) {
    const { conversation, people, me } = this.session;
    const messageId = message.id;
    const whose = message.userId === me.userId ? 'Your message' : `The message of ${people.name(message.userId)}`;
    const dialog = confirmDialog({
      title: 'Delete this message?',
      text: `${whose} “${shortened(oneLine(message.text))}” is deleted for everybody, at once and for good.`,
      label: 'Delete message',
      act: () => conversation.remove(messageId),
    });
    this.#about = { dialog, messageId };
  }

  // Actions ----------------------------------------------------------------------------------------------------------

  /** Return the message as it is now. */
  #now(message) {
    return this.session.conversation.timeline.get(message.id) ?? message;
  }

  /** Return the user's actions on a message: `{id, label, icon, act(anchor)}`. */
  #actionsOf(message) {
    const { session, acts } = this;
    const { conversation, me } = session;
    const { role, isDirect } = conversation;
    const rights = { role, isDirect, authorRole: conversation.roleOf(message.userId) };
    const isPinned = conversation.pins.has(message.id);
    const isGone = Boolean(message.deletedAtMs);
    const action = (allowed, id, label, sign, act) => (allowed ? [{ id, label, icon: sign, act }] : []);
    return [
      action(!isGone, 'react', 'React', 'react', (anchor) => this.pick(message, anchor)),
      action(true, 'reply', 'Reply', 'reply', () => acts.reply(message)),
      action(mayEdit(message, me.userId), 'edit', 'Edit', 'edit', () => acts.edit(this.#now(message))),
      action(true, 'link', 'Copy link', 'link', () => this.#copy(linkTo(conversation.id, message.id), 'Link')),
      action(Boolean(message.text), 'copy', 'Copy text', 'copy', () => this.#copy(message.text, 'Text')),
      action(!isGone && mayPin(rights), 'pin', isPinned ? 'Unpin' : 'Pin', 'pin', () => this.#pin(message, isPinned)),
      action(mayDelete(message, me.userId, rights), 'delete', 'Delete', 'trash', () => this.remove(message)),
    ].flat();
  }

  async #pin(message, isPinned) {
    const { conversation, notify } = this.session;
    try {
      if (isPinned) await conversation.pins.unpin(message.id);
      else await conversation.pins.pin(message.id);
      announce(isPinned ? 'Message unpinned' : 'Message pinned');
    } catch (error) {
      notify(error.message, 'error');
    }
  }

  /** Copy a text, or offer it for copying: pages without TLS have no clipboard. */
  async #copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      this.session.notify(`${what} copied.`);
    } catch {
      const field = h('input', { readonly: true, value: text, 'aria-label': what });
      openDialog({ title: `Copy the ${what.toLowerCase()}`, fill: () => [field] });
      field.select();
    }
  }

  /** Return the actions of the toolbar: all but `copy`, since with a pointer the user can select the text. */
  #toolsOf(message) {
    return this.#actionsOf(message).filter(({ id }) => id !== 'copy');
  }

  #messageOf(item) {
    return this.session.conversation?.timeline.at(Number(item.dataset.seq)) ?? null;
  }

  /** Open the actions on a message as a sheet. */
  #sheet(item) {
    const message = this.#messageOf(item);
    if (!message) return;
    const react = message.deletedAtMs ? null : (emoji) => this.toggle(message, emoji);
    const author = this.session.people.name(message.userId);
    const dialog = messageSheet(message, author, this.#actionsOf(message), react);
    this.#about = message.deletedAtMs ? null : { dialog, messageId: message.id };
  }

  // Toolbar ----------------------------------------------------------------------------------------------------------

  #offer(target) {
    const item = target.closest(STOPS);
    if (item && !this.#hasFocus()) this.#show(item);
  }

  #hasFocus() {
    return this.#bar?.element.contains(document.activeElement) ?? false;
  }

  #show(item) {
    if (this.#bar?.element.parentElement === item) return;
    const message = this.#messageOf(item);
    this.#remove();
    if (!message) return;
    const actions = this.#toolsOf(message);
    const buttons = actions.map(({ id, label, icon: sign, act }, index) =>
      h(
        'button',
        {
          type: 'button',
          class: 'icon-button small',
          tabindex: index ? '-1' : '0',
          'aria-label': label,
          title: label,
          data: { act: id },
          on: { click: (event) => act(event.currentTarget) },
        },
        icon(sign),
      ),
    );
    const name = this.session.people.name(message.userId);
    const element = h('div', { class: 'message-tools', role: 'toolbar', 'aria-label': `Message of ${name}` }, buttons);
    item.append(element);
    this.#bar = { element, seq: item.dataset.seq, signature: signatureOf(actions) };
  }

  #hide() {
    if (!this.#hasFocus() && !isDialogOpen()) this.#remove();
  }

  #left(to) {
    if (!this.#isRendering && !this.list.contains(to) && !isDialogOpen()) this.#remove();
  }

  #remove() {
    this.#bar?.element.remove();
    this.#bar = null;
  }

  #focused(target) {
    const item = target.closest(STOPS);
    if (!item || this.#isRendering) return;
    this.#settle(item);
    if (target.matches(':focus-visible')) this.#show(item);
  }

  // Keyboard ---------------------------------------------------------------------------------------------------------

  #stops() {
    return [...this.list.querySelectorAll(STOPS)];
  }

  #itemOf(seq) {
    return seq ? this.list.querySelector(`${STOPS}[data-seq="${seq}"]`) : null;
  }

  #settle(item) {
    if (this.#stop) this.#stop.tabIndex = -1;
    this.#stop = item ?? null;
    if (item) item.tabIndex = 0;
  }

  #key(event) {
    const { target } = event;
    const item = target.closest(STOPS);
    if (!item) return;
    const isInBar = this.#bar?.element.contains(target);
    if (isInBar && event.key === 'Escape') item.focus();
    else if (isInBar) {
      const step = { ArrowRight: 'nextElementSibling', ArrowLeft: 'previousElementSibling' }[event.key];
      if (!step) return;
      target[step]?.focus();
    } else if (target !== item) return;
    else if (event.key === 'Enter') this.#bar?.element.firstElementChild?.focus();
    else if (!this.#move(item, event.key)) return;
    event.preventDefault();
  }

  #move(item, key) {
    const stops = this.#stops();
    const at = stops.indexOf(item);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: stops.length - 1 }[key];
    if (to === undefined) return false;
    stops[Math.max(0, Math.min(to, stops.length - 1))].focus();
    return true;
  }
}

const signatureOf = (actions) => actions.map(({ id, label }) => `${id} ${label}`).join();

const isDialogOpen = () => document.querySelector('dialog[open]') !== null;
