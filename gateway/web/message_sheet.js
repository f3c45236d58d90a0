/** Actions on a message for touch: a sheet that a long press opens. */

import { openDialog } from './dialogs.js';
import { h } from './dom.js';
import { icon } from './icons.js';
import { emojiGrid } from './reaction_picker.js';
import { oneLine, shortened } from './reply_preview.js';

const LONG_PRESS_MS = 500;
const MOVED_PX = 10; // a finger that moves further is scrolling

/** Call `act(element)` after a long press on an element of `list` that matches the selector, but not on its controls. */
export function onLongPress(list, selector, act) {
  let press = null; // {timer, x, y}
  const release = () => {
    clearTimeout(press?.timer);
    press = null;
  };
  list.addEventListener('pointerdown', ({ pointerType, target, clientX: x, clientY: y }) => {
    const element = target.closest(selector);
    release();
    if (pointerType !== 'touch' || !element || target.closest('a, button')) return;
    press = { timer: setTimeout(() => act(element), LONG_PRESS_MS), x, y };
  });
  list.addEventListener('pointermove', ({ clientX, clientY }) => {
    if (press && Math.hypot(clientX - press.x, clientY - press.y) > MOVED_PX) release();
  });
  for (const type of ['pointerup', 'pointercancel']) list.addEventListener(type, release);
  list.addEventListener('contextmenu', (event) => event.pointerType === 'touch' && event.preventDefault());
}

/** Open the sheet. `actions`: `{label, icon, act(anchor)}`; `react(emoji)` is null for tombstones. */
export function messageSheet(message, author, actions, react) {
  const choose = (close) => (emoji) => {
    close();
    react(emoji);
  };
  openDialog({
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
