/** Dialogs for creating a room, managing its members, and deleting it. */

import { confirmDialog, field, form, openDialog } from './dialogs.js';
import { h, reconcile } from './dom.js';
import { counted } from './format.js';
import { uid } from './ids.js';

const TYPES = [
  ['public', 'Public', 'everyone may read and write'],
  ['private', 'Private', 'members only; others do not see it'],
  ['group', 'Group', 'members only, for small groups'],
];

/** Build an input for user ids that suggests known users. */
function peopleField(session, { name, label, hint, many }) {
  const known = h(
    'datalist',
    { id: `known-${uid()}` },
    session.people.all(session.me.userId).map((id) => h('option', { value: id }, session.people.name(id))),
  );
  const input = h('input', {
    name,
    autocomplete: 'off',
    spellcheck: 'false',
    list: many ? null : known.id,
    placeholder: many ? 'user_ada, user_ben' : 'user_ada',
  });
  return [field(label, input, hint), many ? null : known];
}

/** Return the ids in a comma-separated list; an id that contains a comma is percent-encoded. */
function idsOf(text) {
  const names = text.split(',').map((name) => name.trim());
  return names.filter(Boolean).map(decoded);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Open the dialog that creates a room. */
export function newRoomDialog(session, show) {
  const types = TYPES.map(([value, label, meaning], index) => {
    const radio = h('input', { type: 'radio', name: 'type', value, checked: index === 0 });
    return h(
      'label',
      { class: 'choice' },
      radio,
      h('span', {}, h('strong', {}, label), ' ', h('span', { class: 'muted' }, meaning)),
    );
  });
  const fields = [
    field(
      'Name',
      h('input', {
        name: 'name',
        required: true,
        maxlength: 100,
        autocomplete: 'off',
        placeholder: 'EUR/USD Trading Room',
      }),
    ),
    field('Description', h('textarea', { name: 'description', maxlength: 1000, rows: 2 })),
    h('fieldset', { class: 'choices' }, h('legend', {}, 'Who may come in'), types),
    peopleField(session, {
      name: 'members',
      label: 'Invite',
      hint: 'User ids, separated by commas. More can be invited later.',
      many: true,
    }),
  ].flat();
  const submit = async ({ name, description, type, members }) => {
    show('chat');
    await session.createRoom({ name, description, type, memberIds: idsOf(members) });
  };
  openDialog({ title: 'New room', fill: (close) => form({ fields, label: 'Create room', submit, close }) });
}

/** Open the member list: presence, direct messages, and for the creator inviting and removing. */
export function membersDialog(session, conversation) {
  const { room } = conversation;
  const mayManage = room.createdBy === session.me.userId && !room.directUserIds;
  const count = h('p', { class: 'muted small' });
  const list = h('ul', { class: 'member-list' });
  let ended = [];
  const openedDialog = openDialog({
    title: 'Members',
    kind: 'side',
    onClose: () => ended.forEach((end) => end()),
    fill: () => [mayManage && inviteForm(session, conversation), count, list],
  });
  const render = () => {
    const shown = [...conversation.members].sort(
      (a, b) => session.people.isOnline(b.userId) - session.people.isOnline(a.userId),
    );
    const online = shown.filter(({ userId }) => session.people.isOnline(userId)).length;
    count.textContent = `${counted(conversation.memberTotal, 'member')}, ${online} online`;
    reconcile(
      list,
      shown.map((member) => memberRow(session, conversation, member, mayManage, openedDialog)),
    );
  };
  ended = [conversation.onChange(render), session.people.onChange(render)];
  render();
  conversation.loadMembers().catch((error) => session.tell(error.message, 'error'));
}

function inviteForm(session, conversation) {
  const invite = async ({ userId }) => {
    if (!userId.trim()) return;
    await session.api.invite(conversation.id, userId.trim());
    session.tell(`${session.people.name(userId.trim())} is invited.`);
    element.reset();
    await conversation.loadMembers();
  };
  const element = form({
    fields: peopleField(session, { name: 'userId', label: 'Invite a user', many: false }),
    label: 'Invite',
    submit: invite,
  });
  return element;
}

function memberRow(session, conversation, { userId, role }, mayManage, dialog) {
  const { people, me } = session;
  const online = people.isOnline(userId);
  const isMe = userId === me.userId;
  const write = () => {
    dialog.close();
    session.writeTo(userId);
  };
  const remove = async () => {
    try {
      await session.api.remove(conversation.id, userId);
      await conversation.loadMembers();
    } catch (error) {
      session.tell(error.message, 'error');
    }
  };
  const make = () =>
    h(
      'li',
      { class: 'member' },
      people.avatar(userId, { dot: true }),
      h(
        'span',
        { class: 'room-text' },
        h('span', { class: 'room-name' }, people.name(userId)),
        h('span', { class: 'room-counts' }, isMe ? 'you' : userId),
      ),
      role === 'creator' ? h('span', { class: 'tag' }, 'creator') : null,
      isMe
        ? null
        : h(
            'button',
            {
              type: 'button',
              class: 'button small',
              'aria-label': `Message ${people.name(userId)}`,
              on: { click: write },
            },
            'Message',
          ),
      mayManage && !isMe
        ? h(
            'button',
            {
              type: 'button',
              class: 'button small',
              'aria-label': `Remove ${people.name(userId)}`,
              on: { click: remove },
            },
            'Remove',
          )
        : null,
    );
  return { key: userId, version: `${online}${people.name(userId)}${role}`, make };
}

/** Delete a room after confirmation. */
export function deleteRoomDialog(session, room) {
  confirmDialog({
    title: 'Delete this room?',
    text: `“${room.name}” is deleted for ${counted(room.memberCount, 'member')}, with ${counted(room.lastSeq, 'message')}.`,
    label: 'Delete room',
    act: () => session.deleteRoom(room.id),
  });
}
