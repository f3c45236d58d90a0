/** The state behind the page, without a browser: the timeline of a room, the list of rooms, scales and words. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = { hidden: false };
globalThis.requestAnimationFrame = (tell) => tell();

const { Timeline } = await import('../../../../../gateway/web/timeline.js');
const { messageOf } = await import('../../../../../gateway/web/message_model.js');
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
