/** Message composer. Enter sends, Shift+Enter inserts a line break; each room keeps its own draft. */

import { h } from './dom.js';
import { icon } from './icons.js';

const TEXT_MAX_BYTES = 60_000; // a frame is limited to 64 KB
const IDLE_MS = 4000;

const utf8 = new TextEncoder();

export class Composer {
  #idle = null;

  /** `onSent` is called when a message has been queued. */
  constructor(session, onSent) {
    Object.assign(this, { session, onSent });
    this.conversation = session.conversation;
    this.text = h('textarea', {
      id: 'composer-text',
      rows: '1',
      'aria-label': 'Message',
      placeholder: 'Message',
      enterkeyhint: 'send',
    });
    this.problem = h('p', { class: 'field-error', role: 'alert' });
    this.button = h('button', { type: 'submit', class: 'send', 'aria-label': 'Send' }, icon('send'));
    this.element = h(
      'form',
      { class: 'composer' },
      this.problem,
      h('div', { class: 'composer-row' }, this.text, this.button),
    );
    this.element.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.text.addEventListener('keydown', (event) => this.#key(event));
    this.text.addEventListener('input', () => this.#typed());
    this.text.addEventListener('blur', () => this.conversation?.stopTyping());
    this.text.value = this.conversation?.draft ?? '';
  }

  render() {
    const { session } = this;
    const partner = session.draftTo ?? session.rooms.partner(session.rooms.open);
    const room = session.rooms.open;
    const hint = room && !room.isMember ? ' (the first message joins)' : '';
    const to = partner ? session.people.name(partner) : room?.name;
    this.text.placeholder = `Message ${to ?? ''}${hint}`;
  }

  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#send();
  }

  #typed() {
    this.problem.textContent = '';
    if (!this.conversation) return;
    this.conversation.draft = this.text.value;
    clearTimeout(this.#idle);
    if (!this.text.value.trim()) {
      this.conversation.stopTyping();
      return;
    }
    this.conversation.type();
    this.#idle = setTimeout(() => this.conversation.stopTyping(), IDLE_MS);
  }

  async #send() {
    const text = this.text.value.trim();
    if (!text) return;
    if (utf8.encode(text).length > TEXT_MAX_BYTES) {
      this.problem.textContent = 'This message is too long. The limit is 60,000 bytes.';
      return;
    }
    clearTimeout(this.#idle);
    if (this.conversation) {
      this.#empty();
      this.conversation.send(text);
      this.onSent();
      return;
    }
    this.button.disabled = true;
    try {
      await this.session.sendFirst(text);
      this.#empty();
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      this.button.disabled = false;
    }
  }

  #empty() {
    this.text.value = '';
    if (this.conversation) this.conversation.draft = '';
  }
}
