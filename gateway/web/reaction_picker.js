/** Choice of a reaction: frequent emojis, and a field that takes any. */

import { openDialog } from './dialogs.js';
import { h } from './dom.js';
import { uid } from './ids.js';

export const FREQUENT = [
  ['👍', 'thumbs up'],
  ['👎', 'thumbs down'],
  ['❤️', 'heart'],
  ['😂', 'tears of joy'],
  ['😮', 'astonished'],
  ['🙏', 'thanks'],
  ['🎉', 'celebration'],
  ['🔥', 'fire'],
  ['🚀', 'rocket'],
  ['📈', 'up'],
  ['📉', 'down'],
  ['👀', 'watching'],
];
const COLUMNS = 6;
const MARGIN_PX = 8;

/** Open the picker beside `anchor`. `react(emoji)` throws the server's error, which is shown in the picker. */
export function pickReaction(anchor, react, onClose) {
  const problem = h('p', { class: 'field-error', role: 'alert', id: `problem-${uid()}` });
  const choose = async (emoji) => {
    problem.textContent = '';
    try {
      await react(emoji);
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const dialog = openDialog({
    title: 'React',
    kind: 'popover',
    onClose,
    fill: () => [emojiGrid(choose), anyEmoji(choose, problem), problem],
  });
  place(dialog, anchor);
  dialog.querySelector('.emoji-grid button').focus();
}

/** Build the buttons of the frequent emojis; arrows move within them. */
export function emojiGrid(choose) {
  const grid = h(
    'div',
    { class: 'emoji-grid', role: 'group', 'aria-label': 'Frequent reactions' },
    FREQUENT.map(([emoji, name]) =>
      h(
        'button',
        { type: 'button', class: 'emoji', 'aria-label': name, title: name, on: { click: () => choose(emoji) } },
        emoji,
      ),
    ),
  );
  grid.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS }[event.key];
    const buttons = [...grid.children];
    const to = buttons[buttons.indexOf(document.activeElement) + step];
    if (step === undefined) return;
    event.preventDefault();
    to?.focus();
  });
  return grid;
}

function anyEmoji(choose, problem) {
  const input = h('input', {
    'aria-label': 'Any emoji or :name:',
    'aria-describedby': problem.id,
    placeholder: 'Any emoji or :name:',
    autocomplete: 'off',
    spellcheck: 'false',
    maxlength: 34,
  });
  const form = h(
    'form',
    { class: 'any-emoji' },
    input,
    h('button', { type: 'submit', class: 'button small' }, 'React'),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const emoji = input.value.trim();
    if (emoji) choose(emoji);
  });
  return form;
}

/** Move a dialog beside its anchor, within the window; on small screens it stays at the lower edge. */
function place(dialog, anchor) {
  if (!anchor || !matchMedia('(min-width: 760px)').matches) return;
  const at = anchor.getBoundingClientRect();
  const { width, height } = dialog.getBoundingClientRect();
  const left = Math.min(Math.max(at.right - width, MARGIN_PX), innerWidth - width - MARGIN_PX);
  const above = at.top - height - MARGIN_PX;
  const top = above > MARGIN_PX ? above : Math.min(at.bottom + MARGIN_PX, innerHeight - height - MARGIN_PX);
  Object.assign(dialog.style, { margin: '0', left: `${left}px`, top: `${Math.max(top, MARGIN_PX)}px` });
}
