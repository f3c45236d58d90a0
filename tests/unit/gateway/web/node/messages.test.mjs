/** What edits, deletions, reactions and pins do to the messages of the page, and the texts within them. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = { hidden: false };
globalThis.requestAnimationFrame = (callback) => callback();

const WEB = '../../../../../gateway/web';
const { Timeline } = await import(`${WEB}/timeline.js`);
const { Conversation } = await import(`${WEB}/conversation.js`);
const { Draft } = await import(`${WEB}/draft.js`);
const { Inbox } = await import(`${WEB}/inbox.js`);
const { changedBy, messageOf } = await import(`${WEB}/message_model.js`);
const { addressesIn, mentionsIn, partsOf } = await import(`${WEB}/message_text.js`);
const { matching, mentionBefore } = await import(`${WEB}/mention_list.js`);
const { attachmentOf } = await import(`${WEB}/attachments.js`);
const { linkTo, linkedIn } = await import(`${WEB}/links.js`);
const { listed } = await import(`${WEB}/reactions.js`);
const { mayDelete, mayEdit, mayPin } = await import(`${WEB}/permissions.js`);

const T0 = '2026-01-02T03:04:05.006Z';
const raw = (seq, fields = {}) => ({
  id: `msg_${seq}`,
  chatroomId: 'room_1',
  userId: 'ada',
  user: {},
  message: `text ${seq}`,
  createdAt: T0,
  seq,
  rev: seq,
  clientMessageId: null,
  ...fields,
});
const change = (type, rev, seq, fields = {}) => ({
  type: `chat:${type}`,
  data: { chatroomId: 'room_1', messageId: `msg_${seq}`, rev, ...fields },
});
const edit = (rev, seq, message) => change('updated', rev, seq, { userId: 'ada', message, editedAt: T0 });
const deletion = (rev, seq) => change('deleted', rev, seq, { deletedBy: 'mod', deletedAt: T0 });
const reaction = (rev, seq, reactions, changes) => change('reaction', rev, seq, { reactions, ...(changes && { changes }) });
const timelineOf = (...messages) => {
  const timeline = new Timeline('me');
  timeline.addPage(messages.map(messageOf));
  return timeline;
};

test('edit replaces text and mentions, and is applied once', () => {
  const message = messageOf(raw(1, { mentions: ['ben'] }));
  const once = changedBy(message, edit(5, 1, 'new'), 'me');
  assert.deepEqual([once.text, once.editedAtMs, once.mentions], ['new', Date.parse(T0), []]);
  const named = change('updated', 6, 1, { userId: 'ada', message: '@Cy', editedAt: T0, mentions: ['cy'] });
  assert.deepEqual(changedBy(once, named, 'me').mentions, ['cy']);
  assert.equal(changedBy(once, edit(5, 1, 'repeated'), 'me'), once);
  assert.equal(changedBy(once, edit(4, 1, 'older'), 'me'), once);
  assert.equal(message.text, 'text 1');
});

test('deletion leaves a tombstone that no later change revives', () => {
  const full = raw(1, { reactions: [{ emoji: '👍', count: 1 }], attachments: [{ kind: 'link', url: 'https://a.b' }] });
  const gone = changedBy(messageOf(full), deletion(5, 1), 'me');
  const tombstone = messageOf(raw(1, { message: '', deletedAt: T0, deletedBy: 'mod' }));
  assert.deepEqual({ ...gone, changedRev: 0 }, { ...tombstone, changedRev: 0 });
  assert.equal(changedBy(gone, edit(6, 1, 'again'), 'me'), gone);
  assert.equal(changedBy(gone, reaction(7, 1, [{ emoji: '👍', count: 1 }]), 'me'), gone);
});

test('reactions show counts, and as mine what this user has added', () => {
  const before = messageOf(raw(1, { reactions: [{ emoji: '🔥', count: 1, mine: true }] }));
  const both = [
    { emoji: '🔥', count: 1 },
    { emoji: '👍', count: 2 },
  ];
  const added = reaction(5, 1, both, [
    { userId: 'me', emoji: '👍', added: true },
    { userId: 'ben', emoji: '👍', added: true },
  ]);
  const after = changedBy(before, added, 'me');
  assert.deepEqual(after.reactions, [
    { emoji: '🔥', count: 1, mine: true },
    { emoji: '👍', count: 2, mine: true },
  ]);
  const removed = reaction(6, 1, [{ emoji: '👍', count: 2 }], [{ userId: 'me', emoji: '🔥', added: false }]);
  assert.deepEqual(changedBy(after, removed, 'me').reactions, [{ emoji: '👍', count: 2, mine: true }]);
});

test('previews of replies follow their original', () => {
  const timeline = timelineOf(raw(1), raw(2, { replyTo: { messageId: 'msg_1', userId: 'ada', message: 'text 1' } }));
  timeline.change(edit(5, 1, 'é'.repeat(300)));
  assert.equal(timeline.at(2).replyTo.text, 'é'.repeat(200));
  timeline.change(deletion(6, 1));
  assert.equal(timeline.at(2).replyTo.text, '');
  timeline.change(edit(5, 1, 'repeated'));
  assert.equal(timeline.at(2).replyTo.text, '');
});

test('page that was requested before a change shows the change', () => {
  const timeline = timelineOf(raw(2));
  const asOfRev = timeline.rev;
  timeline.change(edit(5, 1, 'new'));
  timeline.change(deletion(6, 2));
  timeline.addPage([raw(1), raw(2)].map(messageOf), asOfRev);
  assert.equal(timeline.at(1).text, 'new');
  assert.equal(timeline.at(2).deletedAtMs, Date.parse(T0));
  timeline.addPage([messageOf(raw(1, { message: 'newest', editedAt: T0 }))], timeline.rev);
  assert.equal(timeline.at(1).text, 'newest');
});

test('detached timeline takes no live messages until it is attached', () => {
  const timeline = timelineOf(raw(100), raw(101));
  timeline.show([raw(9), raw(10)].map(messageOf), 0, 101);
  assert.deepEqual([timeline.isDetached, timeline.firstSeq, timeline.lastSeq], [true, 9, 10]);
  timeline.sending('c1', 'mine');
  assert.equal(timeline.add(messageOf(raw(102, { clientMessageId: 'c1' }))), false);
  assert.deepEqual([timeline.lastSeq, timeline.pendingOf('c1')], [10, null]);
  timeline.trim();
  assert.deepEqual([timeline.isDetached, timeline.isLoaded], [false, false]);
});

test('page that joins the loaded messages extends them', () => {
  const timeline = timelineOf(raw(100), raw(101));
  timeline.show([raw(98), raw(99)].map(messageOf), 0, 101);
  assert.deepEqual([timeline.isDetached, timeline.firstSeq, timeline.lastSeq], [false, 98, 101]);
});

function conversationOf(answers) {
  const api = {
    messages: async () => answers.messages,
    message: async () => answers.message,
    pins: async () => answers.pins ?? [],
    members: async () => ({ data: [], pagination: { total: 0 } }),
  };
  const connection = { follow: (...call) => answers.followed?.push(call), unfollow: () => {} };
  const people = { learn: () => {}, seen: () => {} };
  const room = { id: 'room_1', isMember: true, lastSeq: 1, readSeq: 1 };
  const rooms = { get: () => room, unread: () => 0, change: () => {}, openId: 'room_1' };
  return new Conversation('room_1', { api, connection, people, rooms, me: 'me' });
}

test('reaction without its users makes the page read the message again', async () => {
  const again = raw(1, { reactions: [{ emoji: '👍', count: 900, mine: true }] });
  const conversation = conversationOf({ messages: [raw(1)], message: again });
  await conversation.load();
  conversation.takeChange(reaction(5, 1, [{ emoji: '👍', count: 900 }]));
  assert.equal(conversation.timeline.at(1).reactions[0].mine, false);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(conversation.timeline.at(1).reactions, [{ emoji: '👍', count: 900, mine: true }]);
});

test('pins follow unpinning and deletion', async () => {
  const pins = [1, 2].map((seq) => ({ message: raw(seq), by: 'ada', at: T0 }));
  const conversation = conversationOf({ messages: [raw(1), raw(2)], pins });
  await conversation.pins.load();
  conversation.takeChange(change('pinned', 5, 1, { pinned: false, userId: 'ada' }));
  assert.deepEqual([conversation.pins.has('msg_1'), conversation.pins.has('msg_2')], [false, true]);
  conversation.takeChange(deletion(6, 2));
  assert.equal(conversation.pins.entries.length, 0);
});

test('edit sets the draft aside and brings it back', () => {
  const draft = new Draft();
  draft.text = 'half a thought';
  draft.edit(messageOf(raw(1)));
  draft.text = 'changed';
  draft.edit(messageOf(raw(2)));
  draft.stopEditing();
  assert.deepEqual([draft.text, draft.editing], ['half a thought', null]);
  draft.reply(messageOf(raw(1)));
  draft.clear();
  assert.deepEqual([draft.text, draft.replyTo], ['', null]);
});

const NAMES = [
  { userId: 'ben', name: 'Ben' },
  { userId: 'carter', name: 'Ben Carter' },
  { userId: 'room', name: 'room' },
];
const named = (text) => mentionsIn(text, NAMES).map(({ userId }) => userId);

test('mentions are whole names, the longest one, and no e-mail addresses', () => {
  assert.deepEqual(named('@Ben Carter, @Ben and @room'), ['carter', 'ben', 'room']);
  assert.deepEqual(named('ada@Ben @Bennet @roommate @ Ben'), []);
});

test('text is cut into addresses, mentions and the rest', () => {
  const text = 'See (https://a.example/x?y=1). @Ben http://b.example/@Ben';
  const parts = partsOf(text, NAMES);
  assert.equal(parts.map((part) => part.text).join(''), text);
  assert.deepEqual(
    parts.flatMap(({ url, userId }) => url ?? userId ?? []),
    ['https://a.example/x?y=1', 'ben', 'http://b.example/@Ben'],
  );
  assert.deepEqual(addressesIn('javascript:alert(1) ftp://a.b https:// www.a.b'), []);
});

test('mention is recognised before the caret', () => {
  assert.deepEqual(mentionBefore('Hi @be', 6), { start: 3, query: 'be' });
  assert.deepEqual(mentionBefore('@Ben Ca', 7), { start: 0, query: 'Ben Ca' });
  assert.equal(mentionBefore('ada@be', 6), null);
  assert.equal(mentionBefore('@be and more', 12), null);
});

test('suggestions begin with the query: names first, then other words, then ids', () => {
  const all = [
    { userId: 'user_zoe', name: 'Zoë Lang' },
    { userId: 'user_x', name: 'Ada Zoeller' },
    { userId: 'zoe_2', name: 'Someone' },
    { userId: 'user_y', name: 'Ben' },
  ];
  assert.deepEqual(
    matching(all, 'zoe').map(({ userId }) => userId),
    ['user_zoe', 'user_x', 'zoe_2'],
  );
});

test('one https address is an attachment', () => {
  assert.deepEqual(attachmentOf(' https://a.example/charts/gold%20daily.png?v=2 '), {
    kind: 'image',
    url: 'https://a.example/charts/gold%20daily.png?v=2',
    name: 'gold daily.png',
  });
  assert.deepEqual(
    [attachmentOf('https://a.example/').name, attachmentOf('https://a.example/news/gold').name],
    ['a.example', 'a.example/…/gold'],
  );
  const refused = ['http://a.example/x.png', 'https://user:secret@a.example/', 'see https://a.example', 'text', ''];
  assert.deepEqual(refused.map(attachmentOf), refused.map(() => null));
});

test('link to a message leads back to it', () => {
  const link = linkTo('room/1', 'msg 2', 'http://127.0.0.1:8080/?x=1#old');
  assert.deepEqual(linkedIn(new URL(link).hash), { roomId: 'room/1', messageId: 'msg 2' });
  assert.deepEqual(['', '#chat', '#/rooms/%', '#/rooms/'].map(linkedIn), [null, null, null, null]);
});

test('reacting users are listed in words', () => {
  assert.equal(listed(['Ada'], 1), 'Ada');
  assert.equal(listed(['you', 'Ada'], 2), 'you and Ada');
  assert.equal(listed(['you', 'Ada', 'Ben'], 40), 'you, Ada, Ben and 37 others');
});

test('rights follow roles, authors and age', () => {
  const mine = { userId: 'me', atMs: 0, deletedAtMs: null };
  const other = { ...mine, userId: 'ada' };
  assert.deepEqual([mayEdit(mine, 'me', 1000), mayEdit(mine, 'me', 86_400_000), mayEdit(other, 'me', 0)], [true, false, false]);
  const as = (role, authorRole, isDirect = false) => mayDelete(other, 'me', { role, authorRole, isDirect });
  assert.deepEqual(
    [as('moderator', 'member'), as('moderator', 'moderator'), as('creator', 'moderator'), as('member', 'member')],
    [true, false, true, false],
  );
  assert.equal(as('creator', 'member', true), false);
  assert.equal(mayDelete({ ...mine, deletedAtMs: 1 }, 'me', { role: 'creator' }), false);
  assert.deepEqual([mayPin({ role: 'member' }), mayPin({ role: 'member', isDirect: true })], [false, true]);
});

test('deletion empties the reply of a draft, ends the edit, and empties quotes of messages under way', () => {
  const draft = new Draft();
  draft.reply(messageOf(raw(1)));
  draft.take(edit(5, 1, 'new'));
  assert.equal(draft.replyTo.text, 'new');
  draft.take(deletion(6, 1));
  assert.deepEqual([draft.replyTo.text, draft.replyTo.deletedAtMs], ['', Date.parse(T0)]);
  draft.text = 'half a thought';
  draft.edit(messageOf(raw(2)));
  draft.take(deletion(7, 2));
  assert.deepEqual([draft.text, draft.editing], ['half a thought', null]);
  const timeline = timelineOf(raw(1));
  timeline.sending('c1', 'answer', { quote: { messageId: 'msg_1', userId: 'ada', text: 'text 1', rev: 1 } });
  timeline.change(deletion(8, 1));
  assert.equal(timeline.pendingOf('c1').extras.quote.text, '');
});

test('list of pins that was requested before changes shows them', async () => {
  const pins = [1, 2].map((seq) => ({ message: raw(seq), by: 'ada', at: T0 }));
  const conversation = conversationOf({ messages: [raw(1), raw(2)], pins });
  const loading = conversation.pins.load();
  conversation.takeChange(deletion(5, 1));
  conversation.takeChange(edit(6, 2, 'new'));
  await loading;
  assert.deepEqual(conversation.pins.entries.map(({ message }) => message.text), ['new']);
  conversation.takeChange(edit(7, 2, 'newer'));
  assert.equal(conversation.pins.entries[0].message.text, 'newer');
});

test('mention follows its message, also when the inbox is loaded again before the server has erased it', async () => {
  const data = { type: 'mention', chatroomId: 'room_1', messageId: 'msg_1' };
  const stored = { id: 'n1', type: 'notification:new', createdAt: T0, title: 'Ada', message: 'text 1', data };
  const inbox = new Inbox({ notifications: async () => ({ data: [stored] }), unreadCount: async () => 1 });
  inbox.take({ ...data, id: 'n1', title: 'Ada', message: 'text 1' });
  inbox.change(edit(5, 1, 'é'.repeat(300)));
  assert.equal(inbox.get('n1').message, 'é'.repeat(200));
  inbox.change(deletion(6, 1));
  assert.equal(inbox.get('n1').message, '');
  await inbox.load();
  assert.deepEqual([inbox.get('n1').message, inbox.get('n1').roomId], ['', 'room_1']);
});

test('opened room is subscribed to from its newest message, and drops its messages when it is released', async () => {
  const answers = { messages: [raw(1), raw(2, { rev: 7 })], followed: [] };
  const conversation = conversationOf(answers);
  await conversation.load();
  assert.deepEqual(answers.followed, [['room_1', 7]]);
  conversation.draft.reply(conversation.timeline.at(1));
  conversation.takeChange(deletion(9, 2));
  conversation.release();
  assert.deepEqual([conversation.timeline.length, conversation.timeline.isLoaded], [0, false]);
  const tombstone = raw(1, { message: '', deletedAt: T0, deletedBy: 'mod' });
  Object.assign(answers, { messages: [tombstone], message: tombstone });
  await conversation.load();
  assert.deepEqual(answers.followed.at(-1), ['room_1', 9]);
  assert.deepEqual([conversation.timeline.at(1).text, conversation.draft.replyTo.text], ['', '']);
});

test('room that is released while its messages load is not subscribed to', async () => {
  const answers = { messages: [raw(1)], followed: [] };
  const conversation = conversationOf(answers);
  const loading = conversation.load();
  conversation.release();
  await loading;
  assert.deepEqual([answers.followed, conversation.timeline.length], [[], 0]);
});
