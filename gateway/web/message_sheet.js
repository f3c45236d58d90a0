/** Actions on a message for touch: a sheet that a long press opens. */

import { openDialog } from './dialogs.js';
import { h } from './dom.js';
import { icon } from './icons.js';
import { emojiGrid } from './reaction_picker.js';
import { oneLine, shortened } from './reply_preview.js';

const LONG_PRESS_MS = 450;
const CLICK_AFTER_MS = 100; // browsers send it at once, or not at all
const MOVED_PX = 10; // a finger that moves further is scrolling

/**
 * Call `act(element)` after a long press on an element of `list` that matches the selector, but not on its links. The
 * browser's own long press may come first; it ends the touch, and is answered in the same way.
 */
export function onLongPress(list, selector, act) {
  let press = null; // {element, timer, x, y}
  let fired = null; // the element whose press has been answered
  const release = () => {
    clearTimeout(press?.timer);
    press = null;
  };
  const fire = (element) => {
    release();
    fired = element;
    swallowClick();
    act(element);
  };
  list.addEventListener('pointerdown', ({ pointerType, target, clientX: x, clientY: y }) => {
    const element = target.closest(selector);
    release();
    fired = null;
    if (pointerType !== 'touch' || !element || target.closest('a')) return;
    press = { element, timer: setTimeout(() => fire(element), LONG_PRESS_MS), x, y };
  });
  list.addEventListener('pointermove', ({ clientX, clientY }) => {
    if (press && Math.hypot(clientX - press.x, clientY - press.y) > MOVED_PX) release();
  });
  for (const type of ['pointerup', 'pointercancel']) list.addEventListener(type, release);
  list.addEventListener('contextmenu', (event) => {
    const element = event.target.closest(selector);
    if (event.pointerType !== 'touch' || !element || event.target.closest('a')) return;
    event.preventDefault();
    if (fired !== element) fire(element);
  });
}

/** Swallow the click that ends this touch: it would hit the element opened under the finger. */
function swallowClick() {
  const gesture = new AbortController();
  const options = { capture: true, signal: gesture.signal };
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
    gesture.abort();
  };
  document.addEventListener('click', swallow, options);
  document.addEventListener('pointerdown', () => gesture.abort(), options);
  document.addEventListener('pointerup', () => setTimeout(() => gesture.abort(), CLICK_AFTER_MS), options);
}

/** Open the sheet. `actions`: `{label, icon, act(anchor)}`; `react(emoji)` is null for tombstones. Returns the dialog. */
export function messageSheet(message, author, actions, react) {
  const choose = (close) => (emoji) => {
    close();
    react(emoji);
  };
  return openDialog({
    title: `Message of ${author}`,
    kind: 'sheet lower',
    fill: (close) => [
      h('p', { class: 'muted small sheet-text' }, shortened(oneLine(message.text, Boolean(message.deletedAtMs)))),
      react && emojiGrid(choose(close)),
      h(
        'div',
        { class: 'sheet-actions' },
        actions.map((action) => sheetButton(action, close)),
      ),
    ],
  });
}

function sheetButton({ id, label, icon: sign, act }, close) {
  const run = () => {
    close();
    act(null);
  };
  const text = id === 'react' ? 'Another reaction' : label;
  return h('button', { type: 'button', class: 'sheet-action', data: { act: id }, on: { click: run } }, icon(sign), text);
}
