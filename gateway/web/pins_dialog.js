/** List of a room's pinned messages. */

import { openDialog } from './dialogs.js';
import { h, reconcile } from './dom.js';
import { fullTimeOf } from './format.js';
import { resultItem } from './message_results.js';
import { mayPin } from './permissions.js';

/** Open the list; `jump(message)` shows a message in the room. */
export function pinsDialog(session, conversation, jump) {
  const { pins } = conversation;
  const list = h('ol', { class: 'results' });
  const empty = h('p', { class: 'muted' }, 'No pinned messages.');
  let end = null;
  const dialog = openDialog({ title: 'Pinned messages', kind: 'side', onClose: () => end?.(), fill: () => [empty, list] });
  const show = (message) => {
    dialog.close();
    jump(message);
  };
  const render = () => {
    const isAllowed = mayPin({ role: conversation.role, isDirect: conversation.isDirect });
    empty.hidden = pins.entries.length > 0;
    reconcile(
      list,
      pins.entries.map(({ message, by, atMs }) => ({
        key: message.id,
        version: `${isAllowed}${message.text}`,
        make: () =>
          resultItem(
            session,
            message,
            () => show(message),
            h('p', { class: 'muted small', title: fullTimeOf(atMs) }, `Pinned by ${session.people.name(by)}`),
            isAllowed ? unpinButton(session, pins, message) : null,
          ),
      })),
    );
  };
  end = conversation.onChange(render);
  render();
  pins.load().catch((error) => session.notify(error.message, 'error'));
}

function unpinButton(session, pins, { id }) {
  const unpin = () => pins.unpin(id).catch((error) => session.notify(error.message, 'error'));
  return h('button', { type: 'button', class: 'button small', on: { click: unpin } }, 'Unpin');
}
