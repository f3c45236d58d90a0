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

const ROLES = [
  ['member', 'Member'],
  ['moderator', 'Moderator'],
  ['creator', 'Creator'],
];

/** Open the member list: presence, roles, direct messages, and for the creator inviting, removing and giving roles. */
export function membersDialog(session, conversation) {
  const isManager = () => conversation.role === 'creator' && !conversation.room?.directUserIds;
  const count = h('p', { class: 'muted small' });
  const list = h('ul', { class: 'member-list' });
  const invite = inviteForm(session, conversation);
  let ended = [];
  const openedDialog = openDialog({
    title: 'Members',
    kind: 'side',
    onClose: () => ended.forEach((end) => end()),
    fill: () => [invite, count, list],
  });
  const render = () => {
    const shown = [...conversation.members].sort(
      (a, b) => session.people.isOnline(b.userId) - session.people.isOnline(a.userId),
    );
    const online = shown.filter(({ userId }) => session.people.isOnline(userId)).length;
    invite.hidden = !isManager();
    count.textContent = `${counted(conversation.memberTotal, 'member')}, ${online} online`;
    reconcile(
      list,
      shown.map((member) => memberRow(session, conversation, member, isManager(), openedDialog)),
    );
  };
  ended = [conversation.onChange(render), session.people.onChange(render)];
  render();
  conversation.loadMembers().catch((error) => session.notify(error.message, 'error'));
}

function inviteForm(session, conversation) {
  const invite = async ({ userId }) => {
    if (!userId.trim()) return;
    await session.api.invite(conversation.id, userId.trim());
    session.notify(`${session.people.name(userId.trim())} is invited.`);
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
      session.notify(error.message, 'error');
    }
  };
  const button = (label, act) =>
    h(
      'button',
      { type: 'button', class: 'button small', 'aria-label': `${label} ${people.name(userId)}`, on: { click: act } },
      label,
    );
  const isManaged = mayManage && !isMe;
  const controls = () =>
    isManaged
      ? h(
          'span',
          { class: 'member-controls' },
          rolePicker(session, conversation, userId, role),
          button('Message', write),
          button('Remove', remove),
        )
      : [roleTag(role), isMe ? null : button('Message', write)];
  const make = () =>
    h(
      'li',
      { class: `member ${isManaged ? 'is-managed' : ''}` },
      people.avatar(userId, { dot: true }),
      h(
        'span',
        { class: 'room-text' },
        h('span', { class: 'room-name' }, people.name(userId)),
        h('span', { class: 'room-counts' }, isMe ? 'you' : userId),
      ),
      controls(),
    );
  return { key: userId, version: `${online}${people.name(userId)}${role}${mayManage}`, make };
}

function roleTag(role) {
  return role === 'member' ? null : h('span', { class: 'tag' }, role);
}

/** Build the choice of a member's role. The role creator hands the room over, after confirmation. */
function rolePicker(session, conversation, userId, role) {
  const name = session.people.name(userId);
  const options = ROLES.map(([value, label]) => h('option', { value, selected: value === role }, label));
  const picker = h('select', { class: 'role-picker', 'aria-label': `Role of ${name}` }, options);
  const give = async (chosen) => {
    await session.api.setRole(conversation.id, userId, chosen);
    await conversation.loadMembers();
  };
  picker.addEventListener('change', () => {
    const chosen = picker.value;
    if (chosen !== 'creator') {
      give(chosen).catch((error) => {
        picker.value = role;
        session.notify(error.message, 'error');
      });
      return;
    }
    picker.value = role; // until it is confirmed
    confirmDialog({
      title: 'Hand the room over?',
      text: `${name} becomes the creator of “${conversation.room?.name}”, and you a moderator. Only ${name} can undo this.`,
      label: 'Hand over',
      act: () => give(chosen),
    });
  });
  return picker;
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
