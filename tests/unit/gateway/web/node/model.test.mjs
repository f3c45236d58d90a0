// The core against a model of the server: frames move one by one and the link breaks at random, seeded points.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Driver } from './driver.mjs';

const RUNS = 300;
const STEPS = 60;
const KINDS = ['send', 'send', 'other', 'cut', 'flow', 'refuse', 'up', 'up', 'down', 'down'];

/** A room as the server keeps it, and what is on its way in either direction. */
class Server {
  log = [];
  incoming = [];
  outgoing = [];
  isListening = false;

  /** Store a message once; notify listeners, again if it is stored already. */
  write(name) {
    if (!this.log.includes(name)) {
      this.log.push(name);
    }
    const seq = this.log.indexOf(name) + 1;
    if (this.isListening) {
      this.outgoing.push(this.#frame(seq));
    }
    return seq;
  }

  handle(isBusy, welcome) {
    const frame = this.incoming.shift();
    if (frame.type === 'auth') {
      this.outgoing.push(welcome);
      (frame.subscriptions ?? []).forEach((entry) => this.#subscribe(entry));
    } else if (frame.type === 'subscribe') {
      this.#subscribe(frame);
    } else if (frame.type === 'ping') {
      this.outgoing.push({ type: 'pong', id: frame.id, data: {} });
    } else if (isBusy) {
      const data = { code: 'UNAVAILABLE', message: 'busy', retryable: true };
      this.outgoing.push({ type: 'error', id: frame.id, data });
    } else {
      this.outgoing.push({ type: 'chat:ack', id: frame.id, data: { seq: this.write(frame.clientMessageId) } });
    }
  }

  cut() {
    this.isListening = false;
    this.incoming = [];
    this.outgoing = [];
  }

  #subscribe({ id, since }) {
    const missed = this.log.slice(since).map((_, n) => this.#frame(since + n + 1));
    const data = { channel: 'chatroom', seq: this.log.length, recovered: true, replayed: missed.length };
    this.outgoing.push({ type: 'subscribed', id, data }, ...missed);
    this.isListening = true;
  }

  #frame(seq) {
    const data = { chatroomId: 'room_1', seq, clientMessageId: this.log[seq - 1] };
    return { type: 'chat:message', data };
  }
}

class World extends Driver {
  server = new Server();
  isUp = false;
  own = [];

  constructor() {
    super();
    this.do('connect');
    this.do('subscribe', { channel: 'chatroom', chatroomId: 'room_1', since: 0 });
  }

  step(what) {
    if (what === 'flow') {
      this.flow();
    } else if (what === 'send') {
      const name = `own-${this.own.length}`;
      this.own.push([this.send('room_1', name), `c-${name}`]);
    } else if (what === 'other') {
      this.server.write(`other-${this.server.log.length}`);
    } else if (what === 'cut') {
      this.server.cut();
      this.cut();
      this.isUp = false;
    } else if (what === 'connect' && this.core.state === 'connecting' && !this.isUp) {
      this.isUp = true;
      this.do('opened', this.opens);
    } else if ((what === 'up' || what === 'refuse') && this.server.incoming.length > 0) {
      this.server.handle(what === 'refuse', this.welcomeFrame());
    } else if (what === 'down' && this.server.outgoing.length > 0) {
      this.receive(this.server.outgoing.shift());
    }
    this.server.incoming.push(...this.frames());
    if (this.drops > 0) { // the client has dropped the link by itself
      [this.drops, this.isUp] = [0, false];
      this.server.cut();
    }
  }

  /** A second passes in which the link holds. */
  flow() {
    this.pass(1_000);
    this.step('connect');
    while (this.isUp && this.server.incoming.length + this.server.outgoing.length > 0) {
      this.step('up');
      this.step('down');
    }
  }

  welcomeFrame() {
    const data = { serverTime: '2030-01-01T00:00:00.000Z', expiresAt: '2030-01-02T00:00:00.000Z' };
    return { type: 'auth:ok', id: 'auth', data: { ...data, heartbeatInterval: 30_000, maxMessageBytes: 65_536 } };
  }
}

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('no interleaving loses, repeats or reorders messages', () => {
  for (let seed = 1; seed <= RUNS; seed += 1) {
    const random = numbers(seed);
    const world = new World();
    for (let n = 0; n < STEPS; n += 1) {
      world.step(KINDS[Math.floor(random() * KINDS.length)]);
    }
    for (let n = 0; n < 200; n += 1) {
      world.flow();
    }
    const { log } = world.server;
    const shown = world.of('chat:message');
    assert.deepEqual(shown.map(({ clientMessageId }) => clientMessageId), log, `seed ${seed}`);
    assert.deepEqual(log.filter((name) => name.startsWith('c-own')), world.own.map(([, name]) => name), `seed ${seed}`);
    const acked = world.own.map(([id]) => world.settled.get(id)?.seq);
    assert.deepEqual(acked, world.own.map(([, name]) => log.indexOf(name) + 1), `seed ${seed}`);
    assert.deepEqual(world.of('missed'), [], `seed ${seed}`);
  }
});
