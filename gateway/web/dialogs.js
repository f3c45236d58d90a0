/** Native dialogs: Escape closes them, focus stays inside and returns to where it was. */

import { byId, h } from './dom.js';
import { icon } from './icons.js';
import { uid } from './ids.js';

/**
 * Open a dialog. `kind`: "sheet" (centred), "sheet lower" (at the lower edge of a phone), "side" (at the edge) or
 * "popover" (small, placed by the caller). `fill(close)` returns its content.
 * A click outside closes it. Returns the dialog.
 */
export function openDialog({ title, kind = 'sheet', fill, onClose }) {
  const close = () => dialog.close();
  const heading = h('h2', { id: `title-${uid()}` }, title);
  const closer = h(
    'button',
    { type: 'button', class: 'icon-button', 'aria-label': 'Close', on: { click: close } },
    icon('close'),
  );
  const body = h('div', { class: 'dialog-body' });
  const dialog = h(
    'dialog',
    { class: `dialog ${kind}`, 'aria-labelledby': heading.id },
    h('div', { class: 'dialog-head' }, heading, closer),
    body,
  );
  dialog.addEventListener('click', (event) => event.target === dialog && close());
  dialog.addEventListener('close', () => {
    onClose?.();
    dialog.remove();
  });
  body.append(...[fill(close)].flat().filter(Boolean));
  byId('dialogs').append(dialog);
  dialog.showModal();
  return dialog;
}

/** Build a form whose button is disabled while `submit(values)` runs. An error of `submit` appears beside it. */
export function form({ fields, label, submit, close }) {
  const error = h('p', { class: 'field-error', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'button primary' }, label);
  const element = h('form', { class: 'stack' }, fields, error, h('div', { class: 'actions' }, button));
  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    button.disabled = true;
    error.textContent = '';
    try {
      await submit(Object.fromEntries(new FormData(element)));
      close?.();
    } catch (problem) {
      error.textContent = problem.message;
    } finally {
      button.disabled = false;
    }
  });
  return element;
}

/** Build a label with its control below it, and an optional hint. */
export function field(label, control, hint) {
  control.id ||= `field-${uid()}`;
  const hinted = hint && h('span', { class: 'muted small', id: `${control.id}-hint` }, hint);
  if (hinted) control.setAttribute('aria-describedby', hinted.id);
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, hinted);
}

/** Ask for confirmation of an irreversible action. Returns the dialog. */
export function confirmDialog({ title, text, label, act }) {
  return openDialog({
    title,
    fill: (close) => [h('p', {}, text), form({ fields: [], label, submit: act, close })],
  });
}
