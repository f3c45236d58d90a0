/** Entry point of the page: sign-in, session, views. */

import { Bell } from './bell.js';
import { ChatView } from './chat_view.js';
import { Connection } from './connection.js';
import { watchConnection } from './connection_status.js';
import { openDialog } from './dialogs.js';
import { byId, h, watchPointer } from './dom.js';
import { icon } from './icons.js';
import { linkedIn } from './links.js';
import { MarketBoard } from './market_board.js';
import { RoomList } from './room_list.js';
import { Session } from './session.js';
import { forget, remembered, renew, signIn } from './sign_in.js';
import { themeButton } from './theme.js';
import { toast } from './toasts.js';

const TAB_ICONS = { rooms: 'group', chat: 'chat', market: 'chart' };

async function main() {
  watchPointer();
  themeButton(byId('theme'));
  let identity = remembered() ?? (await signIn());
  const connection = new Connection(async (reason) => {
    if (reason !== 'connect') identity = await renew(identity);
    return identity.token;
  });
  const session = new Session(identity, () => identity.token, connection, toast);
  byId('app').hidden = false;
  const show = panes();
  const rooms = new RoomList(byId('rooms'), session, show);
  const chat = new ChatView(byId('chat'), session, show);
  new MarketBoard(byId('market'), session);
  new Bell(byId('bell'), session);
  watchConnection(connection, signOut);
  account(byId('account'), session);
  shortcuts(rooms, show);
  await session.start();
  const follow = () => followLink(session, chat, show);
  addEventListener('hashchange', follow);
  await follow();
}

/** Show the message that the address links to, and forget the link: it would be followed again at the next reload. */
async function followLink(session, chat, show) {
  const link = linkedIn(location.hash);
  if (!link) return;
  history.replaceState(null, '', location.pathname);
  show('chat');
  await session.open(link.roomId);
  if (link.messageId) await chat.jumpTo(link.messageId);
}

function signOut() {
  forget();
  location.reload();
}

/** Show one pane at a time on small screens. Returns a function that shows a pane. */
function panes() {
  const app = byId('app');
  const tabs = [...document.querySelectorAll('.tabs button')];
  const show = (pane) => {
    app.dataset.pane = pane;
    for (const tab of tabs) tab.ariaCurrent = tab.dataset.pane === pane ? 'page' : null;
  };
  for (const tab of tabs) {
    tab.querySelector('.tab-icon').append(icon(TAB_ICONS[tab.dataset.pane]));
    tab.addEventListener('click', () => show(tab.dataset.pane));
  }
  show('rooms');
  return show;
}

function account(button, session) {
  const { people, me } = session;
  const render = () => button.replaceChildren(people.avatar(me.userId, { size: 'small' }));
  people.onChange(render);
  render();
  button.ariaLabel = `Account: ${people.name(me.userId)}`;
  button.addEventListener('click', () =>
    openDialog({
      title: 'Account',
      fill: () => [
        h(
          'div',
          { class: 'account-card' },
          people.avatar(me.userId, { size: 'large' }),
          h(
            'div',
            {},
            h('p', { class: 'room-name' }, people.name(me.userId)),
            h('p', { class: 'muted small' }, me.userId),
          ),
        ),
        h(
          'div',
          { class: 'actions' },
          h('button', { type: 'button', class: 'button', on: { click: signOut } }, 'Sign out'),
        ),
      ],
    }),
  );
}

function shortcuts(rooms, show) {
  document.addEventListener('keydown', (event) => {
    if (event.key.toLowerCase() !== 'k' || !(event.ctrlKey || event.metaKey) || event.altKey) return;
    event.preventDefault();
    show('rooms');
    rooms.search.focus();
    rooms.search.select();
  });
}

main();
