/** Reactions under a message: one button a kind, pressed if the user reacted. */

import { announce, h } from './dom.js';
import { icon } from './icons.js';

const NAMED_MAX = 10;

/** Build the reactions of a message; `toggle(emoji)` and `add(anchor)` act. */
export function reactionChips(session, conversation, message, { toggle, add }) {
  if (!message.reactions.length) return null;
  return h(
    'div',
    { class: 'reactions', role: 'group', 'aria-label': 'Reactions' },
    message.reactions.map((reaction) => chip(session, conversation, message, reaction, toggle)),
    h(
      'button',
      {
        type: 'button',
        class: 'reaction add',
        'aria-label': 'Add a reaction',
        title: 'Add a reaction',
        on: { click: (event) => add(event.currentTarget) },
      },
      icon('react'),
    ),
  );
}

function chip(session, conversation, { id }, { emoji, count, mine }, toggle) {
  const button = h(
    'button',
    {
      type: 'button',
      class: 'reaction',
      'aria-pressed': String(mine),
      'aria-label': `${emoji}, ${count}${mine ? ', you reacted' : ''}`,
      on: { click: () => toggle(emoji) },
    },
    h('span', { class: emoji.startsWith(':') ? 'reaction-name' : 'emoji', 'aria-hidden': 'true' }, emoji),
    h('span', { class: 'numbers', 'aria-hidden': 'true' }, String(count)),
  );
  let asked = null;
  const showWho = async (event) => {
    asked ??= whoReacted(session, conversation.id, id, emoji);
    const who = await asked;
    button.title = who;
    if (event.type === 'focus' && who && document.activeElement === button && button.matches(':focus-visible'))
      announce(who);
  };
  button.addEventListener('pointerenter', showWho);
  button.addEventListener('focus', showWho);
  return button;
}

/** Return the names of users who reacted, in words; an empty text if they cannot be loaded. */
async function whoReacted({ api, people, me }, roomId, messageId, emoji) {
  try {
    const { data, pagination } = await api.reactions(roomId, messageId, { emoji, limit: NAMED_MAX });
    for (const { userId, user } of data) people.learn(userId, user);
    const names = data.map(({ userId }) => (userId === me.userId ? 'you' : people.name(userId)));
    return `${listed(names, pagination.total)} reacted with ${emoji}`;
  } catch {
    return '';
  }
}

/** Return names in words: "Ada, Ben and 3 others". */
export function listed(names, total) {
  const others = total - names.length;
  const parts = others > 0 ? [...names, `${others} other${others === 1 ? '' : 's'}`] : names;
  if (parts.length < 2) return parts.join('');
  return `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
}
