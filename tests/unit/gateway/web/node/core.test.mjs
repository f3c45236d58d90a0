import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Driver } from './driver.mjs';

const ROOM = { channel: 'chatroom', chatroomId: 'room_1' };

function opened(settings) {
  const driver = new Driver(settings);
  driver.open();
  return driver;
}

function inRoom({ seq = 0, rev, ...settings } = {}) {
  const driver = opened(settings);
  driver.do('subscribe', ROOM);
  driver.subscribed(driver.frames()[0], { seq, rev });
  return driver;
}

describe('connecting', () => {
  test('requests wait for the connection, and the auth frame carries subscriptions', () => {
    const driver = new Driver();
    driver.do('connect');
    driver.do('subscribe', ROOM);
    driver.send('room_1', 'hello');
    assert.deepEqual(driver.frames(), []);
    const auth = driver.open();
    assert.equal(auth.token, 'token-1');
    assert.deepEqual(auth.subscriptions.map(({ type, channel, chatroomId }) => [type, channel, chatroomId]), [
      ['subscribe', 'chatroom', 'room_1'],
    ]);
    assert.deepEqual(driver.frames().map(({ type, message }) => [type, message]), [['chat:send', 'hello']]);
  });

  test('a connection attempt times out', () => {
    const driver = new Driver();
    driver.do('connect');
    driver.pass(10_000);
    assert.equal(driver.core.state, 'waiting');
    assert.equal(driver.drops, 1);
    driver.pass(500);
    driver.do('opened', driver.opens);
    driver.pass(10_000);
    assert.equal(driver.core.state, 'waiting');
  });

  test('backoff doubles up to its maximum with jitter', () => {
    const delays = [0.0, 0.999].map((chance) => {
      const driver = new Driver({ random: () => chance, backoffFirstMs: 100, backoffMaxMs: 1_000 });
      driver.do('connect');
      for (let n = 0; n < 6; n += 1) {
        driver.cut();
        driver.pass(driver.core.deadlineMs(driver.nowMs) - driver.nowMs);
      }
      return driver.of('state').filter(({ state }) => state === 'waiting').map(({ retryInMs }) => retryInMs);
    });
    assert.deepEqual(delays[0], [0, 100, 200, 400, 500, 500]);
    assert.deepEqual(delays[1], [100, 200, 400, 800, 1000, 1000]);
  });

  test('only a connection of 5 s resets the backoff', () => {
    const driver = opened({ backoffFirstMs: 100, random: () => 1 - Number.EPSILON });
    const pause = () => driver.of('state').filter(({ state }) => state === 'waiting').at(-1).retryInMs;
    driver.cut();
    driver.open();
    driver.cut();
    assert.equal(pause(), 200);
    driver.open();
    driver.pass(5_000);
    driver.cut();
    assert.equal(pause(), 100);
  });

  test('wake connects at once and pings an open link', () => {
    const driver = opened();
    driver.cut();
    driver.do('wake');
    assert.equal(driver.core.state, 'connecting');
    driver.open();
    driver.frames();
    driver.do('wake');
    assert.deepEqual(driver.frames().map(({ type }) => type), ['ping']);
  });

  test('reports of an abandoned socket are ignored', () => {
    const driver = inRoom();
    const old = driver.opens;
    driver.pass(45_000);
    driver.open();
    driver.do('received', old, JSON.stringify({ type: 'chat:message', data: { chatroomId: 'room_1', seq: 1 } }));
    driver.do('closed', old, 1006, '');
    assert.deepEqual(driver.seqs(), []);
    assert.equal(driver.core.state, 'open');
  });
});

describe('close codes', () => {
  for (const code of [1003, 1009, 4400, 4403]) {
    test(`${code} closes the client for good`, () => {
      const driver = opened();
      const id = driver.send('room_1', 'hello');
      driver.cut(code, 'no');
      driver.pass(3_600_000);
      assert.equal(driver.core.state, 'closed');
      assert.equal(driver.settled.get(id).code, 'CLOSED');
      assert.equal(driver.settled.get(id).closeCode, code);
    });
  }

  test('1012 after server:drain reconnects after the announced delay', () => {
    const driver = opened();
    driver.receive({ type: 'server:drain', data: { reconnectAfterMs: 1_234 } });
    driver.cut(1012);
    assert.equal(driver.of('state').at(-1).retryInMs, 1_234);
  });

  test('4429 delays the reconnect by at least 10 s, 1013 by more than the backoff', () => {
    for (const [code, leastMs] of [[4429, 10_000], [1013, 500]]) {
      const driver = opened({ random: () => 0 });
      driver.cut(code);
      assert.ok(driver.of('state').at(-1).retryInMs >= leastMs, String(code));
    }
  });

  test('4401 closes a client with a fixed token', () => {
    const driver = opened();
    driver.cut(4401, 'expired');
    assert.equal(driver.core.state, 'closed');
    driver.do('tokenReady', 'token-2');
    driver.do('connect');
    driver.do('opened', driver.opens);
    assert.equal(driver.frames().at(-1).token, 'token-2');
  });

  test('4401 fetches another token, at most three in a row', () => {
    const driver = new Driver({ token: null, canRefresh: true });
    driver.do('connect');
    for (let n = 0; n < 4; n += 1) {
      driver.do('tokenReady', `token-${n}`);
      driver.do('opened', driver.opens);
      driver.cut(4401, 'revoked');
      driver.pass(10_000);
    }
    assert.deepEqual(driver.tokens, ['connect', 'refused', 'refused', 'refused']);
    assert.equal(driver.core.state, 'closed');
  });
});

describe('tokens', () => {
  test('is fetched once, renewed a minute before expiry, and reused after a reconnect', () => {
    const driver = new Driver({ token: null, canRefresh: true });
    driver.do('connect');
    driver.do('tokenReady', 'token-1');
    driver.do('opened', driver.opens);
    driver.welcome({ lifeMs: 600_000 });
    for (let n = 0; n < 60; n += 1) {
      driver.pass(9_000);
      driver.receive({ type: 'pong', data: {} });
    }
    assert.deepEqual(driver.tokens, ['connect', 'expiring']);
    driver.frames();
    driver.do('tokenReady', 'token-2');
    assert.deepEqual(driver.frames().map(({ type, token, subscriptions }) => [type, token, subscriptions]), [
      ['auth', 'token-2', undefined],
    ]);
    driver.welcome({ lifeMs: 600_000 });
    driver.cut();
    driver.open();
    assert.deepEqual(driver.tokens, ['connect', 'expiring']);
    assert.deepEqual(driver.of('state').filter(({ state }) => state === 'open').map(({ resumed }) => resumed), [
      false, true,
    ]);
  });

  test('is fetched again if it has expired', () => {
    const driver = new Driver({ token: null, canRefresh: true });
    driver.do('connect');
    driver.do('tokenReady', 'token-1');
    driver.do('opened', driver.opens);
    driver.welcome({ lifeMs: 1_000 });
    driver.cut();
    driver.nowMs += 60_000;
    driver.do('tick');
    assert.equal(driver.tokens.at(-1), 'connect');
  });

  test('is fetched again after a failed or hanging fetch', () => {
    const driver = new Driver({ token: null, canRefresh: true });
    driver.do('connect');
    driver.do('tokenFailed', 'down');
    assert.equal(driver.core.state, 'waiting');
    driver.pass(1_000);
    assert.equal(driver.core.state, 'connecting');
    driver.pass(9_000);
    assert.equal(driver.core.state, 'connecting');
    driver.pass(3_000);
    assert.deepEqual(driver.tokens, ['connect', 'connect', 'connect']);
    driver.do('tokenReady', 'token-1');
    driver.open();
    assert.equal(driver.core.state, 'open');
  });
});

describe('a dead link', () => {
  test('is detected after a heartbeat and the answer timeout', () => {
    const driver = opened();
    driver.pass(39_999);
    assert.equal(driver.core.state, 'open');
    driver.pass(1);
    assert.equal(driver.core.state, 'waiting');
    assert.equal(driver.drops, 1);
  });

  test('is detected after the answer timeout of a request', () => {
    const driver = opened();
    driver.send('room_1', 'hello');
    driver.pass(10_000);
    assert.equal(driver.core.state, 'waiting');
  });

  test('is ruled out by any frame', () => {
    const driver = opened();
    for (let n = 0; n < 20; n += 1) {
      driver.pass(9_000);
      driver.receive({ type: 'user:online', data: {} });
    }
    assert.equal(driver.core.state, 'open');
  });

  test('ping measures latency', () => {
    const driver = opened();
    driver.pass(30_000);
    const { id } = driver.frames().at(-1);
    driver.nowMs += 42;
    driver.receive({ type: 'pong', id, data: {} });
    assert.equal(driver.core.stats.latencyMs, 42);
  });
});

describe('resume', () => {
  test('starts after the last message and repeats none', () => {
    const driver = inRoom({ seq: 5 });
    driver.message('room_1', 6);
    driver.message('room_1', 7);
    driver.cut();
    const { subscriptions } = driver.open();
    assert.equal(subscriptions[0].since, 7);
    driver.subscribed(subscriptions[0], { seq: 9, recovered: true, replayed: 2 });
    [7, 8, 8, 9, 10].forEach((seq) => driver.message('room_1', seq));
    assert.deepEqual(driver.seqs(), [6, 7, 8, 9, 10]);
    assert.equal(driver.core.stats.repeats, 2);
    assert.deepEqual(driver.of('missed'), []);
  });

  test('continues after an interrupted replay', () => {
    const driver = inRoom({ seq: 5 });
    driver.cut();
    driver.subscribed(driver.open().subscriptions[0], { seq: 8, recovered: true, replayed: 3 });
    driver.message('room_1', 6);
    driver.cut();
    assert.equal(driver.open().subscriptions[0].since, 6);
  });

  test('reports a gap beyond the replay and continues from the newest message', () => {
    const driver = inRoom({ seq: 5 });
    driver.cut();
    driver.subscribed(driver.open().subscriptions[0], { seq: 5_000, recovered: false });
    assert.deepEqual(driver.of('missed'), [{ ...ROOM, since: 5, seq: 5_000 }]);
    driver.cut();
    assert.equal(driver.open().subscriptions[0].since, 5_000);
  });

  test('follows a room whose seq has moved back', () => {
    const driver = inRoom({ seq: 50 });
    driver.cut();
    driver.subscribed(driver.open().subscriptions[0], { seq: 3, recovered: false });
    driver.message('room_1', 4);
    assert.deepEqual(driver.seqs(), [4]);
  });

  test('reports a gap on an open link', () => {
    const driver = inRoom({ seq: 5 });
    driver.message('room_1', 9);
    assert.deepEqual(driver.of('missed'), [{ ...ROOM, since: 5, seq: 8 }]);
  });

  test('tracks the inbox, but not events for everybody', () => {
    const driver = opened();
    driver.do('subscribe', { channel: 'notifications' });
    driver.subscribed(driver.frames()[0], { seq: 10 });
    for (const data of [{ seq: 11 }, { seq: 11 }, {}, {}]) {
      driver.receive({ type: 'notification:new', data });
    }
    driver.receive({ type: 'trade:created', data: { seq: 12 } });
    driver.receive({ type: 'chat:read', data: { chatroomId: 'room_1', seq: 3 } });
    assert.deepEqual(driver.of('notification:new'), [{ seq: 11 }, {}, {}]);
    assert.equal(driver.of('chat:read').length, 1);
    driver.cut();
    assert.equal(driver.open().subscriptions[0].since, 12);
  });

  test('includes rooms of direct messages without a subscription', () => {
    const driver = opened();
    driver.message('room_direct', 4);
    driver.message('room_direct', 4);
    driver.cut();
    const [entry] = driver.open().subscriptions;
    assert.deepEqual([entry.chatroomId, entry.since], ['room_direct', 4]);
    assert.deepEqual(driver.seqs(), [4]);
  });

  test('includes the room of a direct message acked after a reconnect', () => {
    const driver = opened();
    driver.do('sendMessage', { type: 'chat:direct', userId: 'u2', message: 'x', clientMessageId: 'c' }, 'user u2');
    driver.cut();
    driver.open();
    const [again] = driver.frames();
    driver.ack(again, { chatroomId: 'room_direct', seq: 7 });
    const [entry] = driver.frames();
    assert.deepEqual([entry.type, entry.chatroomId, entry.since], ['subscribe', 'room_direct', 6]);
    driver.message('room_direct', 7);
    assert.deepEqual(driver.seqs(), [7]);
  });

  test('includes the 50 most recently active direct rooms', () => {
    const driver = opened();
    for (let n = 0; n < 60; n += 1) {
      driver.message(`room_${n}`, 1);
    }
    driver.cut();
    const ids = driver.open().subscriptions.map(({ chatroomId }) => chatroomId);
    assert.deepEqual(ids, Array.from({ length: 50 }, (_, n) => `room_${n + 10}`));
  });

  test('sends subscriptions that do not fit into the auth frame right after it', () => {
    const driver = new Driver();
    driver.do('connect');
    for (let n = 0; n < 210; n += 1) {
      driver.do('subscribe', { channel: 'chatroom', chatroomId: `room_${n}` });
    }
    driver.do('opened', driver.opens);
    const [auth, ...rest] = driver.frames();
    assert.equal(auth.subscriptions.length, 200);
    assert.deepEqual(rest.map(({ chatroomId }) => chatroomId), Array.from({ length: 10 }, (_, n) => `room_${n + 200}`));
    const long = new Driver();
    long.do('connect');
    for (let n = 0; n < 190; n += 1) {
      long.do('subscribe', { channel: 'market', symbols: Array.from({ length: 10 }, (_, k) => `${n}-${k}`.padEnd(32)) });
    }
    long.do('opened', long.opens);
    const frames = long.frames();
    assert.ok(frames[0].subscriptions.length < 190);
    assert.ok(JSON.stringify(frames[0]).length <= 65_536);
    assert.equal(frames[0].subscriptions.length + frames.length - 1, 190);
  });

  test('final rejection is reported and retryable rejection is retried', () => {
    const driver = inRoom();
    driver.cut();
    driver.refuse(driver.open().subscriptions[0], 'UNAVAILABLE', { retryable: true });
    driver.pass(1_000);
    const [again] = driver.frames();
    assert.equal(again.chatroomId, 'room_1');
    driver.refuse(again, 'NOT_FOUND');
    assert.deepEqual(driver.of('subscription:lost'), [{ ...ROOM, code: 'NOT_FOUND', message: 'NOT_FOUND' }]);
    driver.cut();
    assert.equal(driver.open().subscriptions, undefined);
  });
});

describe('subscriptions', () => {
  test('unsubscribed channel is not restored', () => {
    const driver = inRoom();
    driver.do('unsubscribe', ROOM);
    driver.message('room_1', 1); // still in flight
    const [, request] = [null, driver.frames()[0]];
    driver.receive({ type: 'unsubscribed', id: request.id, data: ROOM });
    assert.deepEqual(driver.seqs(), []);
    assert.deepEqual(driver.settled.get(request.id), ROOM);
    driver.cut();
    const offline = driver.do('subscribe', ROOM);
    const undone = driver.do('unsubscribe', ROOM);
    assert.equal(driver.settled.get(offline).code, 'UNSUBSCRIBED');
    assert.deepEqual(driver.settled.get(undone), ROOM);
    assert.equal(driver.open().subscriptions, undefined);
  });

  test('unsubscribe between auth and its answer reaches the server', () => {
    const driver = inRoom();
    driver.cut();
    driver.do('wake');
    driver.do('opened', driver.opens);
    driver.frames();
    driver.do('unsubscribe', ROOM);
    driver.do('subscribe', ROOM);
    driver.welcome();
    assert.deepEqual(driver.frames().map(({ type }) => type), ['unsubscribe', 'subscribe']);
  });

  test('connection loss completes a pending unsubscribe', () => {
    const driver = inRoom();
    const id = driver.do('unsubscribe', ROOM);
    driver.cut();
    assert.deepEqual(driver.settled.get(id), ROOM);
  });

  test('known symbols are restored, grouped by rate', () => {
    const driver = opened();
    driver.do('subscribe', { channel: 'market', symbols: ['A', 'B', 'C'], maxRate: 5 });
    driver.subscribed(driver.frames()[0], { symbols: ['A', 'B'], unknown: ['C'] });
    driver.do('subscribe', { channel: 'market', symbols: ['B', 'D'] });
    driver.subscribed(driver.frames()[0], { symbols: ['B', 'D'], unknown: [] });
    driver.do('unsubscribe', { channel: 'market', symbols: ['D'] });
    driver.cut();
    assert.deepEqual(driver.open().subscriptions.map(({ symbols, maxRate }) => [symbols, maxRate]), [
      [['A'], 5], [['B'], undefined],
    ]);
  });

  test('rejected market subscription keeps confirmed symbols', () => {
    const driver = opened();
    driver.do('subscribe', { channel: 'market', symbols: ['A'] });
    driver.subscribed(driver.frames()[0], { symbols: ['A'], unknown: [] });
    driver.do('subscribe', { channel: 'market', symbols: ['A', 'B'] });
    driver.refuse(driver.frames()[0], 'TOO_MANY_SUBSCRIPTIONS');
    driver.cut();
    assert.deepEqual(driver.open().subscriptions.map(({ symbols }) => symbols), [['A']]);
  });

  test('repeated and older prices are dropped, stale marks are delivered', () => {
    const driver = opened();
    driver.do('subscribe', { channel: 'market', symbols: ['A'] });
    for (const data of [{ seq: 5 }, { seq: 4 }, { seq: 5 }, { seq: 5, stale: true }, { seq: 6 }]) {
      driver.receive({ type: 'market:price', data: { symbol: 'A', ...data } });
    }
    assert.deepEqual(driver.of('market:price').map(({ seq, stale }) => [seq, stale]), [
      [5, undefined], [5, true], [6, undefined],
    ]);
  });

  test('room that the user was removed from is not restored', () => {
    const driver = inRoom();
    driver.receive({ type: 'unsubscribed', data: { channel: 'chatroom', chatroomId: 'room_1', reason: 'removed' } });
    driver.cut();
    assert.equal(driver.open().subscriptions, undefined);
  });

  test('deleted room is not restored', () => {
    const driver = inRoom();
    driver.receive({ type: 'chatroom:deleted', data: { chatroomId: 'room_1' } });
    driver.cut();
    assert.equal(driver.open().subscriptions, undefined);
  });
});

describe('messages', () => {
  test('are sent one by one per room and in parallel across rooms', () => {
    const driver = opened();
    ['a', 'b'].forEach((text) => driver.send('room_1', text));
    driver.send('room_2', 'c');
    const [a, c] = driver.frames();
    assert.deepEqual([a.message, c.message], ['a', 'c']);
    driver.ack(a);
    assert.deepEqual(driver.frames().map(({ message }) => message), ['b']);
  });

  test('are resent unchanged until they are acked once', () => {
    const driver = opened();
    const id = driver.send('room_1', 'a');
    driver.send('room_1', 'b');
    const [first] = driver.frames();
    driver.cut();
    driver.open();
    const [again] = driver.frames();
    assert.deepEqual(again, first);
    driver.ack(again, { seq: 3 });
    driver.ack(again, { seq: 3 });
    assert.equal(driver.settled.get(id).seq, 3);
    assert.deepEqual(driver.frames().map(({ message }) => message), ['b']);
  });

  test('wait together and in order during a rate limit', () => {
    const driver = opened();
    ['a', 'b'].forEach((text) => driver.send('room_1', text));
    driver.refuse(driver.frames()[0], 'RATE_LIMITED', { retryable: true, retryAfterMs: 7_000 });
    driver.send('room_2', 'c');
    driver.do('request', { type: 'presence:get', userIds: ['u'] });
    assert.deepEqual(driver.frames().map(({ type }) => type), ['presence:get']);
    driver.receive({ type: 'presence:state', data: {} });
    driver.pass(6_999);
    assert.deepEqual(driver.frames(), []);
    driver.pass(1);
    assert.deepEqual(driver.frames().map(({ message }) => message), ['a', 'c']);
  });

  test('go on while a rate limit holds up changes, and changes while one holds up messages', () => {
    const driver = opened();
    driver.react('room_1', 'm1');
    driver.refuse(driver.frames()[0], 'RATE_LIMITED', { retryable: true, retryAfterMs: 7_000 });
    driver.react('room_2', 'm2');
    driver.send('room_1', 'a');
    driver.send('room_2', 'b');
    const sent = driver.frames();
    assert.deepEqual(sent.map(({ message }) => message), ['a', 'b']);
    driver.pass(6_000);
    driver.refuse(sent[0], 'RATE_LIMITED', { retryable: true, retryAfterMs: 3_000 });
    driver.pass(999);
    assert.deepEqual(driver.frames(), []);
    driver.pass(1);
    const changes = driver.frames();
    assert.deepEqual(changes.map(({ messageId }) => messageId), ['m1', 'm2']);
    driver.ack(changes[0], {});
    driver.pass(2_000);
    assert.deepEqual(driver.frames().map(({ message }) => message), ['a']);
  });

  test('fail at once when the wait is beyond their deadline, and hold up no other', () => {
    const driver = opened({ requestTimeoutMs: 120_000 });
    const id = driver.send('room_1', 'to a stranger');
    driver.refuse(driver.frames()[0], 'RATE_LIMITED', { retryable: true, retryAfterMs: 3_600_000 });
    const { code, retryable, retryAfterMs } = driver.settled.get(id);
    assert.deepEqual([code, retryable, retryAfterMs], ['RATE_LIMITED', true, 3_600_000]);
    driver.send('room_2', 'to a friend');
    assert.deepEqual(driver.frames().map(({ message }) => message), ['to a friend']);
  });

  test('fail with the code of the rejection, and the next one is sent', () => {
    const driver = opened();
    const id = driver.send('room_1', 'a');
    driver.send('room_1', 'b');
    const details = [{ field: 'message', reason: 'must not be blank' }];
    driver.refuse(driver.frames()[0], 'VALIDATION', { details });
    const error = driver.settled.get(id);
    assert.deepEqual([error.name, error.code, error.retryable, error.details], [
      'RealtimeError', 'VALIDATION', false, details,
    ]);
    assert.deepEqual(driver.of('error').map(({ code }) => code), ['VALIDATION']);
    assert.deepEqual(driver.frames().map(({ message }) => message), ['b']);
  });

  test('time out with and without a connection', () => {
    const driver = opened({ requestTimeoutMs: 3_000 });
    const online = driver.send('room_1', 'a');
    const idle = new Driver({ requestTimeoutMs: 3_000 });
    const offline = idle.send('room_1', 'a');
    driver.pass(3_000);
    idle.pass(3_000);
    assert.equal(driver.settled.get(online).code, 'TIMEOUT');
    assert.equal(idle.settled.get(offline).code, 'TIMEOUT');
  });

  test('are bounded in size and number', () => {
    const driver = new Driver({ pendingMax: 2 });
    const large = driver.send('room_1', 'é'.repeat(40_000));
    const [, , over] = ['a', 'b', 'c'].map((text) => driver.send('room_1', text));
    assert.equal(driver.settled.get(large).code, 'TOO_LARGE');
    assert.equal(driver.settled.get(over).code, 'QUEUE_FULL');
  });

  test('fail on a closed client and on close', () => {
    const driver = opened();
    const waiting = driver.send('room_1', 'a');
    driver.do('close');
    const late = driver.send('room_1', 'b');
    const subscription = driver.do('subscribe', ROOM);
    for (const id of [waiting, late, subscription]) {
      assert.equal(driver.settled.get(id).code, 'CLOSED');
    }
    assert.equal(driver.core.deadlineMs(driver.nowMs), Infinity);
  });

  test('typing is not queued', () => {
    const driver = new Driver();
    assert.equal(driver.do('sendNow', { type: 'chat:typing', chatroomId: 'room_1', isTyping: true }), false);
    driver.open();
    assert.deepEqual(driver.frames(), []);
    assert.equal(driver.do('sendNow', { type: 'chat:typing', chatroomId: 'room_1', isTyping: true }), true);
  });
});

test('malformed frames are ignored', () => {
  const driver = inRoom();
  for (const text of ['', 'x', 'null', '[]', '{}', '{"type":1}', '{"type":"chat:message"}', '{"type":"pong","id":99}']) {
    driver.do('received', driver.opens, text);
  }
  driver.receive({ type: 'chat:ack', id: 9_999, data: {} });
  assert.equal(driver.core.state, 'open');
});

describe('changes of messages', () => {
  const change = (driver, type, rev) => driver.receive({ type, data: { chatroomId: 'room_1', rev, messageId: 'm' } });
  const spoken = (driver, seq, rev) =>
    driver.receive({ type: 'chat:message', data: { chatroomId: 'room_1', seq, rev } });
  const resumed = (driver) => {
    driver.cut();
    return driver.open().subscriptions[0];
  };

  test('a room is resumed after the last change, and repeats are dropped', () => {
    const driver = inRoom({ seq: 4, rev: 10 });
    spoken(driver, 5, 11);
    change(driver, 'chat:updated', 12);
    const entry = resumed(driver);
    assert.deepEqual([entry.sinceRev, entry.since], [12, undefined]);
    driver.subscribed(entry, { seq: 6, rev: 14, recovered: true });
    change(driver, 'chat:deleted', 13);
    const again = resumed(driver); // amid the replay
    assert.equal(again.sinceRev, 13);
    driver.subscribed(again, { seq: 6, rev: 14, recovered: true });
    change(driver, 'chat:deleted', 13);
    spoken(driver, 6, 14);
    assert.deepEqual(driver.of('chat:deleted').map(({ rev }) => rev), [13]);
    assert.deepEqual(driver.seqs(), [5, 6]);
  });

  test('a rev counts only once all messages before it have arrived', () => {
    const driver = opened();
    driver.do('subscribe', { ...ROOM, since: 3 });
    driver.subscribed(driver.frames()[0], { seq: 5, rev: 20, recovered: true });
    spoken(driver, 4, 9);
    const entry = resumed(driver); // message 5 is missing, although rev 20 is known
    assert.deepEqual([entry.since, entry.sinceRev], [4, undefined]);
    driver.subscribed(entry, { seq: 5, rev: 20, recovered: true });
    spoken(driver, 5, 15);
    assert.equal(resumed(driver).sinceRev, 20);
  });

  test('a system frame with a seq is no notification', () => {
    const driver = opened();
    driver.do('subscribe', { channel: 'notifications' });
    driver.subscribed(driver.frames()[0], { seq: 3 });
    ['room:news', 'chat:something', 'member:news'].forEach((type) => driver.receive({ type, data: { seq: 9 } }));
    driver.receive({ type: 'quiz:opened', data: { seq: 4 } });
    driver.receive({ type: 'quiz:opened', data: { seq: 4 } });
    assert.deepEqual(driver.of('missed'), []);
    assert.equal(driver.of('quiz:opened').length, 1);
  });
});
