/** Messages of the open room: the scrolled list, jumps within it, loading at both ends, and read marks. */

import { announce, h, reconcile, whenReleased } from './dom.js';
import { counted } from './format.js';
import { icon } from './icons.js';
import { MessageActions } from './message_actions.js';
import { MessageItems, readersBySeq } from './message_items.js';

const NEAR_BOTTOM_PX = 80;
const NEAR_EDGE_PX = 300;
const TARGET_SHOWN_MS = 2500;

export class MessagePane {
  #announcedSeq;
  #leftAtSeq = 0; // the room's last message when the user scrolled away from the bottom
  #target = null; // timer of the highlight

  /** `isSeen()` returns whether the pane is displayed; `acts`: `{reply(message), edit(message)}`. */
  constructor(session, conversation, isSeen, acts) {
    Object.assign(this, { session, conversation, isSeen });
    this.#announcedSeq = conversation.timeline.lastSeq;
    this.stuck = true;
    this.list = h('ol', { class: 'messages' });
    this.actions = new MessageActions(session, this.list, acts);
    this.items = new MessageItems(session, {
      jump: (messageId) => this.jumpTo(messageId),
      toggle: (message, emoji) => this.actions.toggle(message, emoji),
      pick: (message, anchor) => this.actions.pick(message, anchor),
    });
    this.older = h(
      'button',
      { type: 'button', class: 'button small older', on: { click: () => this.#load('loadOlder') } },
      'Earlier messages',
    );
    this.scroll = h(
      'div',
      { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Messages' },
      this.older,
      this.list,
    );
    this.scroll.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.jumpText = h('span', {});
    this.jump = h(
      'button',
      { type: 'button', class: 'jump', hidden: true, on: { click: () => this.toNewest() } },
      icon('down'),
      this.jumpText,
    );
    this.element = h('div', { class: 'scroll-frame' }, this.scroll, this.jump);
    this.observer = new ResizeObserver(() => {
      if (this.stuck) this.toBottom();
      this.markRead();
    });
    this.observer.observe(this.scroll);
  }

  /** Stop watching the size. */
  end() {
    this.observer.disconnect();
    clearTimeout(this.#target);
  }

  render() {
    whenReleased(this.list, () => this.#render());
  }

  #render() {
    const { conversation } = this;
    const { timeline } = conversation;
    if (this.stuck && !timeline.isDetached) timeline.trim();
    const bottomPx = this.scroll.scrollHeight - this.scroll.scrollTop;
    const readers = readersBySeq(conversation, timeline.lastSeq);
    this.actions.rendering();
    reconcile(
      this.list,
      timeline.items(this.session.me.userId).map((item) => this.items.item(item, readers)),
    );
    this.actions.rendered();
    this.older.hidden = !timeline.hasOlder;
    this.list.classList.toggle('is-empty', timeline.isLoaded && timeline.length === 0);
    if (this.stuck && !timeline.isDetached) this.toBottom();
    else if (timeline.firstSeq !== this.firstSeq) this.scroll.scrollTop = this.scroll.scrollHeight - bottomPx;
    this.firstSeq = timeline.firstSeq;
    this.#renderJump();
    this.#announceNewest(timeline);
    this.markRead();
  }

  #renderJump() {
    this.jump.hidden = this.stuck;
    if (this.stuck) return;
    const fresh = Math.max(0, (this.conversation.room?.lastSeq ?? 0) - this.#leftAtSeq);
    const text = fresh ? counted(fresh, 'new message') : 'Newest';
    if (this.jumpText.textContent !== text) this.jumpText.textContent = text;
    this.jump.classList.toggle('has-new', fresh > 0);
  }

  /** Let screen readers announce live messages, but not loaded history. */
  #announceNewest(timeline) {
    const { me, people } = this.session;
    if (timeline.isDetached) return;
    const before = this.#announcedSeq;
    this.#announcedSeq = Math.max(timeline.lastSeq, before);
    const { newest } = timeline;
    if (before && newest && newest.seq > before && newest.userId !== me.userId)
      announce(`${people.name(newest.userId)}: ${newest.text || 'an attachment'}`);
  }

  // Jumps ------------------------------------------------------------------------------------------------------------

  /** Show a message by its id, and load its surroundings if necessary. Failures are shown. */
  async jumpTo(messageId) {
    const { conversation, session } = this;
    try {
      const seq = conversation.timeline.get(messageId)?.seq ?? (await session.api.message(conversation.id, messageId)).seq;
      await conversation.showAround(seq);
      this.#showTarget(seq);
    } catch (error) {
      session.notify(error.status === 404 ? 'This message does not exist any more.' : error.message, 'error');
    }
  }

  #showTarget(seq) {
    this.#leave();
    this.items.targetSeq = seq;
    this.render();
    const item = this.list.querySelector(`.message[data-seq="${seq}"]`);
    item?.scrollIntoView({ block: 'center' });
    item?.focus({ preventScroll: true });
    clearTimeout(this.#target);
    this.#target = setTimeout(() => {
      this.items.targetSeq = null;
      this.render();
    }, TARGET_SHOWN_MS);
  }

  /** Note that the bottom is no longer displayed. */
  #leave() {
    if (!this.stuck) return;
    this.stuck = false;
    this.#leftAtSeq = this.conversation.room?.lastSeq ?? 0;
  }

  /** Return to the newest message. */
  async toNewest() {
    try {
      await this.conversation.showNewest();
    } catch (error) {
      this.session.notify(error.message, 'error');
      return;
    }
    this.toBottom();
    this.render();
  }

  toBottom() {
    this.stuck = true;
    this.jump.hidden = true;
    this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  // Scrolling --------------------------------------------------------------------------------------------------------

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroll;
    const belowPx = scrollHeight - scrollTop - clientHeight;
    const { isDetached } = this.conversation.timeline;
    if (belowPx < NEAR_BOTTOM_PX && !isDetached) this.stuck = true;
    else this.#leave();
    this.#renderJump();
    if (scrollTop < NEAR_EDGE_PX) this.#load('loadOlder');
    if (belowPx < NEAR_EDGE_PX && isDetached) this.#load('loadNewer');
    this.markRead();
  }

  #load(which) {
    const { conversation, session } = this;
    if (conversation.timeline.isLoaded) conversation[which]().catch((error) => session.notify(error.message, 'error'));
  }

  /** Mark the messages as read if the page is visible and scrolled to the bottom. */
  markRead() {
    if (this.stuck && this.isSeen() && document.visibilityState === 'visible') this.conversation.markRead();
  }
}
