/** The state behind the page, without a browser: the timeline of a room, the list of rooms, scales and words. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = { hidden: false };
globalThis.requestAnimationFrame = (callback) => callback();

const { Timeline } = await import('../../../../../gateway/web/timeline.js');
const { messageOf } = await import('../../../../../gateway/web/message_model.js');
const { noteActivity, noteUnread, unknownCounts, unreadIn } = await import('../../../../../gateway/web/unread_counts.js');
const { Rooms } = await import('../../../../../gateway/web/rooms.js');
const { rangeOf, ticksOf } = await import('../../../../../gateway/web/scales.js');
const { Api } = await import('../../../../../gateway/web/api.js');
const { agoOf, dayOf, percentOf, priceOf } = await import('../../../../../gateway/web/format.js');

const message = (seq, fields = {}) => ({
  id: `msg_${seq}`,
  seq,
  userId: 'ada',
  text: `text ${seq}`,
  atMs: seq * 1000,
  clientMessageId: null,
  ...fields,
});
const seqs = (timeline) =>
  timeline.items('me').flatMap(({ kind, message: shown }) => (kind === 'message' ? [shown.seq] : []));
const kinds = (timeline) => timeline.items('me').map(({ kind }) => kind);

test('refusal by a rate says when to try again', async () => {
  const error = { code: 'RATE_LIMITED', message: 'too many new rooms', retryAfterMs: 1_805_000 };
  globalThis.fetch = async () => ({ status: 429, json: async () => ({ success: false, status: 429, error }) });
  const refused = await new Api(() => 'token').createRoom({ name: 'Room' }).catch((problem) => problem);
  assert.equal(refused.message, 'Too many new rooms. Try again in 31 minutes.');
  assert.deepEqual([refused.code, refused.retryAfterMs], ['RATE_LIMITED', 1_805_000]);
  error.retryAfterMs = 4_200;
  const soon = await new Api(() => 'token').join('room_1').catch((problem) => problem);
  assert.equal(soon.message, 'Too many new rooms. Try again in 5 seconds.');
  delete globalThis.fetch;
});

test('timeline orders messages by seq without repeats', () => {
  const timeline = new Timeline();
  for (const seq of [3, 1, 2, 3, 1, 5, 4]) timeline.add(message(seq));
  timeline.addPage([5, 4, 2].map((seq) => message(seq)));
  assert.deepEqual(seqs(timeline), [1, 2, 3, 4, 5]);
});

test('timeline reports a gap and the last contiguous seq', () => {
  const timeline = new Timeline();
  timeline.addPage([message(7), message(8)]);
  assert.equal(timeline.add(message(9)), false);
  assert.equal(timeline.add(message(12)), true);
  assert.equal(timeline.wholeThroughSeq, 9);
  timeline.addPage([message(10), message(11)]);
  assert.equal(timeline.wholeThroughSeq, 12);
  assert.equal(timeline.hasOlder, true);
  timeline.addPage([1, 2, 3, 4, 5, 6].map((seq) => message(seq)));
  assert.equal(timeline.hasOlder, false);
});

test('pending message is shown, then replaced by the stored one', () => {
  const timeline = new Timeline();
  timeline.addPage([message(1)]);
  timeline.sending('c1', 'hello');
  assert.deepEqual(kinds(timeline), ['day', 'message', 'pending']);
  timeline.failed('c1', 'refused');
  assert.equal(timeline.items('me').at(-1).pending.state, 'failed');
  assert.equal(timeline.pendingOf('c1').text, 'hello');
  timeline.sending('c1', 'hello');
  timeline.add(message(2, { userId: 'me', clientMessageId: 'c1' }));
  timeline.sent('c1');
  assert.deepEqual(kinds(timeline), ['day', 'message', 'message']);
});

test('divider precedes messages unread at opening', () => {
  const timeline = new Timeline();
  timeline.dividerSeq = 2;
  timeline.addPage([1, 2, 3, 4].map((seq) => message(seq)));
  assert.deepEqual(kinds(timeline), ['day', 'message', 'message', 'unread', 'message', 'message']);
  assert.deepEqual(
    timeline
      .items('me')
      .filter(({ kind }) => kind === 'message')
      .map(({ together }) => together),
    [false, true, false, true],
  );
});

test('long timeline is trimmed at its old end and knows that history exists', () => {
  const timeline = new Timeline();
  timeline.addPage(Array.from({ length: 700 }, (_, index) => message(index + 1)));
  assert.equal(timeline.hasOlder, false);
  timeline.trim();
  assert.deepEqual([timeline.length, timeline.firstSeq, timeline.lastSeq, timeline.hasOlder], [600, 101, 700, true]);
});

test('REST and live messages have the same shape', () => {
  const rest = {
    id: 'msg_1',
    chatroomId: 'room_1',
    userId: 'ada',
    user: {},
    message: 'hi',
    createdAt: '2026-01-02T03:04:05.006Z',
    seq: 1,
    clientMessageId: null,
  };
  const { id, createdAt, ...same } = rest;
  assert.deepEqual(messageOf({ ...same, messageId: id, timestamp: createdAt }), messageOf(rest));
});

const room = (id, fields = {}) => ({
  id,
  name: id,
  lastSeq: 10,
  unreadCount: 0,
  isMember: true,
  createdAt: '2026-01-01T00:00:00.000Z',
  lastMessageAt: null,
  directUserIds: null,
  ...fields,
});

test('unread counts follow messages and read marks, own messages count as read', () => {
  const rooms = new Rooms(null, 'me');
  rooms.take(room('a', { unreadCount: 2 }));
  const unread = () => rooms.unread(rooms.get('a'));
  assert.equal(unread(), 2);
  rooms.message({ chatroomId: 'a', userId: 'ada', seq: 11, timestamp: '2026-01-01T00:00:01.000Z' });
  assert.equal(unread(), 3);
  assert.equal(rooms.read('a', 11), true);
  assert.equal(rooms.read('a', 9), false);
  assert.equal(unread(), 0);
  rooms.message({ chatroomId: 'a', userId: 'me', seq: 12, timestamp: '2026-01-01T00:00:02.000Z' });
  assert.equal(unread(), 0);
  rooms.take(room('a', { unreadCount: 4 })); // an answer older than the marks
  assert.equal(unread(), 0);
  rooms.take(room('b', { isMember: false }));
  assert.equal(rooms.unread(rooms.get('b')), 0);
});

const AT = '2026-01-01T00:00:02.000Z';
const roomCounts = (chatroomId, seq, unreadCount, mentionCount = 0) => ({ chatroomId, seq, unreadCount, mentionCount });
const answerWith = (...rooms) => ({ rooms, unreadTotal: rooms.reduce((sum, { unreadCount }) => sum + unreadCount, 0) });
const countsIn = (rooms, id) => [rooms.unread(rooms.get(id)), rooms.mentions(rooms.get(id))];

/** Rooms whose list has `listed`; the others can be loaded one by one. */
async function roomsOf(listed, others = [], unread = []) {
  const all = new Map([...listed, ...others].map((one) => [one.id, one]));
  const loaded = [];
  const api = {
    rooms: async () => ({ data: listed, pagination: { pages: 1 } }),
    room: async (id) => loaded.push(id) && all.get(id),
    unread: async () => ({ rooms: unread }),
  };
  const rooms = new Rooms(api, 'me');
  await rooms.refresh();
  return { rooms, loaded };
}
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('activity counts unread messages and mentions, and orders the rooms', async () => {
  const { rooms } = await roomsOf([room('a'), room('b', { unreadCount: 2 })]);
  await rooms.takeSubscribed(answerWith(roomCounts('a', 10, 0), roomCounts('b', 12, 4, 2)));
  assert.deepEqual([countsIn(rooms, 'a'), countsIn(rooms, 'b'), rooms.totals], [[0, 0], [4, 2], { unread: 4, mentions: 2 }]);
  rooms.active([{ chatroomId: 'a', latest: 13, at: AT }]);
  rooms.counted({ chatroomId: 'a', unreadCount: 3, mentionCount: 1 });
  assert.deepEqual(countsIn(rooms, 'a'), [3, 1]);
  assert.deepEqual(rooms.sections().joined.map(({ id }) => id), ['a', 'b']);
  rooms.counted({ chatroomId: 'b', unreadCount: 0, mentionCount: 0 }); // read on another device
  assert.deepEqual(countsIn(rooms, 'b'), [0, 0]);
});

test('counts from before the user read on here are outdated', async () => {
  const { rooms } = await roomsOf([room('a')]);
  await rooms.takeSubscribed(answerWith(roomCounts('a', 10, 0)));
  rooms.message({ chatroomId: 'a', userId: 'ada', seq: 11, timestamp: AT });
  rooms.read('a', 11);
  rooms.active([{ chatroomId: 'a', latest: 11, at: AT }]);
  rooms.counted({ chatroomId: 'a', unreadCount: 1, mentionCount: 1 });
  assert.deepEqual(countsIn(rooms, 'a'), [0, 0]);
  rooms.active([{ chatroomId: 'a', latest: 12, at: AT }]);
  assert.deepEqual(countsIn(rooms, 'a'), [1, 0]);
});

test('fewer mentions at as many unread messages show that a message was deleted or edited', async () => {
  const { rooms } = await roomsOf([room('a')]);
  await rooms.takeSubscribed(answerWith(roomCounts('a', 12, 2, 2)));
  assert.equal(rooms.counted({ chatroomId: 'a', unreadCount: 2, mentionCount: 1 }), true);
  assert.equal(rooms.counted({ chatroomId: 'a', unreadCount: 1, mentionCount: 0 }), false);
});

test('room that the list lacks is counted, and listed once it has unread messages', async () => {
  const others = [room('quiet', { lastSeq: 5 }), room('busy', { lastSeq: 9, unreadCount: 3 }), room('new', { lastSeq: 1 })];
  const { rooms, loaded } = await roomsOf([room('a')], others);
  await rooms.takeSubscribed(answerWith(roomCounts('a', 10, 0), roomCounts('busy', 9, 3, 1), roomCounts('quiet', 5, 0)));
  assert.deepEqual(rooms.totals, { unread: 3, mentions: 1 });
  await settled();
  assert.deepEqual([loaded, countsIn(rooms, 'busy'), rooms.has('quiet')], [['busy'], [3, 1], false]);
  rooms.active([{ chatroomId: 'quiet', latest: 6, at: AT }, { chatroomId: 'new', latest: 2, at: AT }]);
  await settled();
  assert.deepEqual([loaded, countsIn(rooms, 'quiet'), countsIn(rooms, 'new')], [['busy', 'quiet', 'new'], [1, 0], [1, 0]]);
});

test('unread messages beyond the rooms of the answer are requested', async () => {
  const old = { chatroomId: 'old', unreadCount: 7, mentionCount: 2 };
  const { rooms } = await roomsOf([room('a')], [room('old', { lastSeq: 40, unreadCount: 7 })], [old]);
  await rooms.takeSubscribed({ rooms: [roomCounts('a', 10, 0)], unreadTotal: 7 });
  assert.deepEqual(rooms.totals, { unread: 7, mentions: 2 });
  await settled();
  assert.deepEqual(countsIn(rooms, 'old'), [7, 2]);
  rooms.drop('old');
  assert.deepEqual(rooms.totals, { unread: 0, mentions: 0 });
});

test('room that no longer exists is not counted', async () => {
  const { rooms } = await roomsOf([room('a')]);
  rooms.api.room = async () => Promise.reject(Object.assign(new Error('gone'), { status: 404 }));
  await rooms.takeSubscribed(answerWith(roomCounts('a', 10, 0), roomCounts('gone', 9, 3)));
  await settled();
  assert.deepEqual(rooms.totals, { unread: 0, mentions: 0 });
});

test('outdated search answer is dropped', async () => {
  const answers = [];
  const rooms = new Rooms({ rooms: () => new Promise((resolve) => answers.push(resolve)) }, 'me');
  const searches = [rooms.search('a'), rooms.search('ab')];
  answers[1]({ data: [room('ab')] });
  answers[0]({ data: [room('a'), room('ab')] });
  await Promise.all(searches);
  assert.deepEqual(
    rooms.sections().found.map(({ id }) => id),
    ['ab'],
  );
});

test('axis values are round and within range', () => {
  assert.deepEqual(ticksOf(0, 10, 5), [0, 2, 4, 6, 8, 10]);
  for (const [low, high] of [
    [1.08213, 1.08391],
    [64_213.7, 65_012.4],
    [0.1, 0.1],
    [18_000, 19_100],
  ]) {
    const ticks = ticksOf(low, high, 5);
    assert.ok(ticks.length >= 1 && ticks.length <= 12, String(ticks));
    assert.ok(
      ticks.every((tick) => tick >= low - 1e-9 && tick <= high + 1e-9),
      String(ticks),
    );
  }
  const [low, high] = rangeOf([{ low: 5, high: 5 }]);
  assert.ok(low < 5 && high > 5);
});

test('numbers and times are formatted', () => {
  assert.equal(priceOf(65_000.5, 2), '65,000.50');
  assert.deepEqual([percentOf(0.234), percentOf(-1.5), percentOf(-0.001)], ['+0.23%', '−1.50%', '0.00%']);
  const noon = new Date(2026, 4, 5, 12).getTime();
  assert.deepEqual([dayOf(noon - 3_600_000, noon), dayOf(noon - 86_400_000, noon)], ['Today', 'Yesterday']);
  assert.deepEqual(
    [agoOf(noon - 1000, noon), agoOf(noon - 300_000, noon), agoOf(noon - 7_200_000, noon)],
    ['now', '5 min', '2 h'],
  );
});

test('counts of a room that the greeting did not name are known once both frames have arrived', () => {
  const record = unknownCounts();
  noteUnread(record, { unreadCount: 3, mentionCount: 0 });
  assert.equal(unreadIn(record), 3);
  noteActivity(record, { latest: 100, at: '2026-11-27T12:00:00.000Z' });
  noteUnread(record, { unreadCount: 4, mentionCount: 1 });
  assert.deepEqual([unreadIn(record), record.readSeq, record.mentionCount], [4, 96, 1]);
  noteActivity(record, { latest: 101, at: '2026-11-27T12:00:01.000Z' });
  assert.equal(unreadIn(record), 5);
});
