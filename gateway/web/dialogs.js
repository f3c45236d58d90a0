/** Dialogs: the platform's own, so that Escape closes them, focus stays inside and comes back to where it was. */

import { byId, h } from './dom.js';
import { icon } from './icons.js';
import { uid } from './ids.js';

/**
 * Open a dialog. `kind`: "sheet" (middle of the page) or "side" (its edge). `fill(close)` returns what it shows.
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

/** A form whose submit button waits for `submit(values)`; what that throws is shown beside it. */
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

/** A label with its control below it, and a hint if there is one. */
export function field(label, control, hint) {
  control.id ||= `field-${uid()}`;
  const hinted = hint && h('span', { class: 'muted small', id: `${control.id}-hint` }, hint);
  if (hinted) control.setAttribute('aria-describedby', hinted.id);
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, hinted);
}

/** Ask before something that cannot be undone. */
export function confirmDialog({ title, text, label, act }) {
  openDialog({
    title,
    fill: (close) => [h('p', {}, text), form({ fields: [], label, submit: act, close })],
  });
}
