// Driver of the pure core: a clock under the test's control, and a record of the core's actions.

import { Core } from '../../../../../gateway/client/javascript/realtime-core.js';

const DAY_MS = 86_400_000;

export class Driver {
  nowMs = 1_000;
  sent = []; // parsed frames; `frames` takes them
  events = []; // [type, data]
  settled = new Map(); // request id → data or error
  tokens = []; // reasons
  opens = 0;
  drops = 0;

  constructor(settings = {}) {
    this.core = new Core({ token: 'token-1', random: () => 0.5, ...settings });
  }

  /** Call the core with the clock as the last argument, then note what it wants. */
  do(method, ...args) {
    const result = this.core[method](...args, this.nowMs);
    for (const action of this.core.take()) {
      this.#note(action);
    }
    return result;
  }

  /** Let time pass, ticking whenever the core asks for it. */
  pass(ms) {
    const endMs = this.nowMs + ms;
    for (let rounds = 0; this.core.deadlineMs(this.nowMs) <= endMs; rounds += 1) {
      if (rounds > 10_000) {
        throw new Error('the core asks to be ticked without end');
      }
      this.nowMs = Math.max(this.nowMs, this.core.deadlineMs(this.nowMs));
      this.do('tick');
    }
    this.nowMs = endMs;
  }

  /** From idle or waiting to open. Returns the auth frame. */
  open() {
    if (this.core.state === 'idle') {
      this.do('connect');
    }
    this.pass(this.core.state === 'waiting' ? this.core.deadlineMs(this.nowMs) - this.nowMs : 0);
    this.do('opened', this.opens);
    const auth = this.frames().at(-1);
    this.welcome();
    return auth;
  }

  welcome({ lifeMs = DAY_MS, ...more } = {}) {
    const serverMs = Date.parse('2030-01-01T00:00:00.000Z');
    const [serverTime, expiresAt] = [serverMs, serverMs + lifeMs].map((ms) => new Date(ms).toISOString());
    const data = { userId: 'u', sessionId: 's', serverTime, expiresAt, heartbeatInterval: 30_000, ...more };
    this.receive({ type: 'auth:ok', id: 'auth', data });
  }

  receive(frame) {
    this.do('received', this.opens, JSON.stringify(frame));
  }

  message(chatroomId, seq) {
    this.receive({ type: 'chat:message', data: { chatroomId, seq, message: `m${seq}` } });
  }

  subscribed(request, data = {}) {
    const { channel, chatroomId, symbols } = request;
    const answer = { channel, chatroomId, symbols, seq: 0, recovered: false, replayed: 0, ...data };
    this.receive({ type: 'subscribed', id: request.id, data: answer });
  }

  ack(request, data = {}) {
    const { chatroomId, clientMessageId } = request;
    this.receive({ type: 'chat:ack', id: request.id, data: { chatroomId, clientMessageId, seq: 1, ...data } });
  }

  refuse(request, code, more = {}) {
    this.receive({ type: 'error', id: request.id, data: { code, message: code, retryable: false, ...more } });
  }

  cut(code = 1006, reason = '') {
    this.do('closed', this.opens, code, reason);
  }

  send(chatroomId, message) {
    const frame = { type: 'chat:send', chatroomId, message, clientMessageId: `c-${message}` };
    return this.do('sendMessage', frame, `room ${chatroomId}`);
  }

  react(chatroomId, messageId) {
    return this.do('sendMessage', { type: 'chat:react', chatroomId, messageId, emoji: 'x' }, `room ${chatroomId}`);
  }

  /** What was sent since the last call. */
  frames() {
    return this.sent.splice(0);
  }

  /** The data of all events of a type. */
  of(type) {
    return this.events.filter(([name]) => name === type).map(([, data]) => data);
  }

  seqs() {
    return this.of('chat:message').map(({ seq }) => seq);
  }

  #note(action) {
    switch (action.do) {
      case 'open':
        this.opens = action.connection;
        break;
      case 'send':
        this.sent.push(JSON.parse(action.text));
        break;
      case 'drop':
        this.drops += 1;
        break;
      case 'token':
        this.tokens.push(action.reason);
        break;
      case 'emit':
        this.events.push([action.type, action.data]);
        break;
      case 'resolve':
        this.settled.set(action.id, action.data);
        break;
      case 'fail':
        this.settled.set(action.id, action.error);
        break;
      default:
        throw new Error(`unknown action ${action.do}`);
    }
  }
}
