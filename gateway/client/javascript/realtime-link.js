// The link to the server: token, socket, auth, heartbeat, and what to do when it breaks. It knows nothing of rooms and
// messages. Pure: frames, times (milliseconds of one monotonic clock) and chance come in, actions come out.
//
//   idle ── connect ──> connecting (token, socket, auth) ── auth:ok ──> open
//                        ^  │ fails                              │ lost
//                        │  v                                    │
//                       waiting <────────────────────────────────┘     any ── close, 4403, … ──> closed

export const LINK_DEFAULTS = Object.freeze({
  backoffFirstMs: 500,
  backoffMaxMs: 30_000,
  connectTimeoutMs: 10_000, // each for the token, the socket, and auth
  answerTimeoutMs: 10_000, // nothing at all heard for so long after something was asked: the link is dead
  heartbeatMs: 0, // 0: as the server says
});

const STABLE_MS = 5_000; // a connection that lived so long ends a row of failures
const ABUSE_PAUSE_MS = 10_000;
const REFUSED_TOKENS_MAX = 3;
const RENEW_BEFORE_MS = 60_000;
const RESTORED_IN_AUTH_MAX = 200;
const FINAL_CODES = new Set([1003, 1009, 4400, 4403]);
const RESTARTING_CODES = new Set([null, 1001, 1006, 1012]);
const OVERLOADED = 1013;
const UNAUTHORIZED = 4401;
const RATE_ABUSE = 4429;

const utf8 = new TextEncoder();

export class Link {
  state = 'idle';
  connection = 0; // the number of the one in use; 0 is none
  isAuthSent = false;
  stats = { framesIn: 0, framesOut: 0, repeats: 0, reconnects: 0, latencyMs: null };
  server = { heartbeatInterval: 30_000, maxMessageBytes: 65_536 };

  #settings;
  #random;
  #act;
  #peer;
  #connections = 0;
  #untilMs = Infinity; // of waiting, or the deadline of connecting
  #attempt = 0;
  #openedAtMs = 0;
  #wasOpen = false;
  #drainMs = null;
  #token;
  #canRefresh;
  #isFetchingToken = false;
  #refusedTokens = 0;
  #tokenEndsAtMs = Infinity;
  #renewAtMs = Infinity;
  #pingAtMs = Infinity;
  #pings = new Map(); // id → sent at
  #answerByMs = Infinity;

  /**
   * `act` takes the actions. `peer` has `restore()`, the subscribe frames for a new connection; `lost()`; and
   * `stopped(code, reason)`.
   */
  constructor({ token = null, canRefresh = false, random = Math.random, ...settings }, act, peer) {
    this.#settings = settings;
    this.#token = token;
    this.#canRefresh = canRefresh;
    this.#random = random;
    this.#act = act;
    this.#peer = peer;
  }

  get isOpen() {
    return this.state === 'open';
  }

  /** When `tick` is to be called, at the latest. */
  get deadlineMs() {
    return this.isOpen ? Math.min(this.#pingAtMs, this.#answerByMs, this.#renewAtMs) : this.#untilMs;
  }

  connect(nowMs) {
    if (['idle', 'closed', 'waiting'].includes(this.state)) {
      this.#refusedTokens = 0;
      this.#begin(nowMs);
    }
  }

  close() {
    if (this.state !== 'closed') {
      this.#stop(1000, 'closed by the application');
    }
  }

  /** The network is back, or the page is looked at again: do not wait any longer, and do not trust the link. */
  wake(nowMs) {
    if (this.state === 'waiting') {
      this.#begin(nowMs);
    } else if (this.isOpen) {
      this.#ping(nowMs);
    }
  }

  send(frame) {
    this.stats.framesOut += 1;
    this.#act({ do: 'send', text: JSON.stringify(frame) });
  }

  /** Send a frame that is answered: then the server must say something, whatever it is, in time. */
  ask(frame, nowMs) {
    this.#answerByMs = Math.min(this.#answerByMs, nowMs + this.#settings.answerTimeoutMs);
    this.send(frame);
  }

  tokenReady(token, nowMs) {
    this.#token = token;
    this.#tokenEndsAtMs = Infinity;
    this.#isFetchingToken = false;
    if (this.state === 'connecting' && this.connection === 0) {
      this.#open(nowMs);
    } else if (this.isOpen) {
      this.#renewAtMs = Infinity;
      this.ask({ type: 'auth', token, id: 'auth' }, nowMs);
    }
  }

  tokenFailed(message, nowMs) {
    this.#isFetchingToken = false;
    if (this.state === 'connecting' && this.connection === 0) {
      this.#wait(this.#backoffMs(), null, `no token: ${message}`, nowMs);
    } else if (this.isOpen) {
      this.#renewAtMs = nowMs + this.#settings.connectTimeoutMs;
    }
  }

  opened(connection, nowMs) {
    if (this.isInUse(connection) && !this.isOpen) {
      this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
      this.#authenticate();
    }
  }

  closed(connection, code, reason, nowMs) {
    if (this.isInUse(connection)) {
      this.#lost(code, reason, nowMs);
    }
  }

  /** Whether what a socket reports is still of interest. */
  isInUse(connection) {
    return connection !== 0 && connection === this.connection;
  }

  /** Take note of a frame of the connection in use. */
  heard(frame, nowMs) {
    this.#answerByMs = Infinity;
    this.stats.framesIn += 1;
    if (frame?.type === 'auth:ok') {
      this.#welcome(frame.data, nowMs);
    } else if (frame?.type === 'server:drain') {
      this.#drainMs = frame.data.reconnectAfterMs;
    } else if (frame?.type === 'pong' && this.#pings.has(frame.id)) {
      this.stats.latencyMs = nowMs - this.#pings.get(frame.id);
      this.#pings.clear();
    }
  }

  tick(nowMs) {
    if (this.deadlineMs > nowMs) {
      return;
    }
    if (this.state === 'waiting') {
      this.#begin(nowMs);
    } else if (this.state === 'connecting') {
      this.#drop('no answer in time', nowMs);
    } else if (this.#answerByMs <= nowMs) {
      this.#drop('the link is silent', nowMs);
    } else {
      this.#tickOpen(nowMs);
    }
  }

  #tickOpen(nowMs) {
    if (this.#pingAtMs <= nowMs) {
      this.#ping(nowMs);
    }
    if (this.#renewAtMs <= nowMs) {
      this.#renewAtMs = Infinity;
      this.#fetchToken('expiring');
    }
  }

  // Up ---------------------------------------------------------------------------------------------------------------

  #begin(nowMs) {
    this.#move('connecting');
    this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
    if (this.#token === null || (this.#canRefresh && this.#tokenEndsAtMs <= nowMs)) {
      this.#fetchToken(this.#refusedTokens > 0 ? 'refused' : 'connect');
    } else {
      this.#open(nowMs);
    }
  }

  #fetchToken(reason) {
    if (!this.#isFetchingToken) {
      this.#isFetchingToken = true;
      this.#act({ do: 'token', reason });
    }
  }

  #open(nowMs) {
    this.#connections += 1;
    this.connection = this.#connections;
    this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
    this.#drainMs = null;
    this.#pings.clear();
    this.#act({ do: 'open', connection: this.connection });
  }

  /** One frame restores all subscriptions; those that it has no room for come right behind it. */
  #authenticate() {
    this.isAuthSent = true;
    const frame = { type: 'auth', token: this.#token, id: 'auth' };
    const entries = this.#peer.restore();
    let room = this.server.maxMessageBytes - sizeOf({ ...frame, subscriptions: [] });
    const tooMuch = entries.findIndex((entry) => (room -= sizeOf(entry) + 1) < 0);
    const count = Math.min(tooMuch < 0 ? entries.length : tooMuch, RESTORED_IN_AUTH_MAX);
    this.send(count === 0 ? frame : { ...frame, subscriptions: entries.slice(0, count) });
    entries.slice(count).forEach((entry) => this.send(entry));
  }

  #welcome(data, nowMs) {
    this.server = { ...this.server, ...data };
    const lifeMs = Date.parse(data.expiresAt) - Date.parse(data.serverTime); // by the server's clock alone
    const renewInMs = lifeMs - Math.min(RENEW_BEFORE_MS, lifeMs / 4);
    this.#renewAtMs = this.#canRefresh && renewInMs >= 0 ? nowMs + renewInMs : Infinity;
    this.#tokenEndsAtMs = Number.isFinite(lifeMs) ? nowMs + lifeMs : Infinity;
    this.#refusedTokens = 0;
    if (this.isOpen) {
      return;
    }
    this.#openedAtMs = nowMs;
    this.#pingAtMs = nowMs + this.#heartbeatMs;
    this.stats.reconnects += this.#wasOpen ? 1 : 0;
    this.#move('open', { resumed: this.#wasOpen });
    this.#wasOpen = true;
  }

  get #heartbeatMs() {
    return this.#settings.heartbeatMs || this.server.heartbeatInterval;
  }

  #ping(nowMs) {
    const id = `ping-${this.stats.framesOut}`;
    this.#pings.set(id, nowMs);
    this.#pingAtMs = nowMs + this.#heartbeatMs;
    this.ask({ type: 'ping', id }, nowMs);
  }

  // Down -------------------------------------------------------------------------------------------------------------

  #drop(reason, nowMs) {
    this.#act({ do: 'drop', code: 4000 });
    this.#lost(null, reason, nowMs);
  }

  #lost(code, reason, nowMs) {
    if (this.isOpen && nowMs - this.#openedAtMs >= STABLE_MS) {
      this.#attempt = 0;
    }
    this.#down();
    if (FINAL_CODES.has(code)) {
      this.#stop(code, reason);
    } else if (code === UNAUTHORIZED) {
      this.#tokenRefused(reason, nowMs);
    } else if (this.#drainMs !== null && RESTARTING_CODES.has(code)) {
      this.#wait(this.#drainMs, code, reason, nowMs);
    } else {
      const leastMs = code === RATE_ABUSE ? ABUSE_PAUSE_MS : code === OVERLOADED ? this.#settings.backoffFirstMs : 0;
      this.#wait(leastMs + this.#backoffMs(), code, reason, nowMs);
    }
  }

  #down() {
    this.connection = 0;
    this.isAuthSent = false;
    this.#pingAtMs = this.#answerByMs = this.#renewAtMs = Infinity;
    this.#peer.lost();
  }

  #tokenRefused(reason, nowMs) {
    this.#refusedTokens += 1;
    if (!this.#canRefresh || this.#refusedTokens > REFUSED_TOKENS_MAX) {
      this.#stop(UNAUTHORIZED, reason);
      return;
    }
    this.#token = null;
    this.#wait(this.#backoffMs(), UNAUTHORIZED, reason, nowMs);
  }

  #wait(delayMs, code, reason, nowMs) {
    this.#untilMs = nowMs + delayMs;
    this.#isFetchingToken = false; // one that hangs is not waited for
    this.#move('waiting', { code, reason, retryInMs: Math.round(delayMs) });
  }

  #stop(code, reason) {
    this.#down();
    this.#untilMs = Infinity;
    this.#attempt = 0;
    this.#isFetchingToken = false;
    this.#act({ do: 'drop', code: 1000 });
    this.#move('closed', { code, reason });
    this.#peer.stopped(code, reason);
  }

  /** Doubles from attempt to attempt; the first one after a good connection comes soon, for each client another. */
  #backoffMs() {
    const { backoffFirstMs, backoffMaxMs } = this.#settings;
    const topMs = Math.min(backoffFirstMs * 2 ** this.#attempt, backoffMaxMs);
    const bottomMs = this.#attempt === 0 ? 0 : topMs / 2;
    this.#attempt += 1;
    return bottomMs + this.#random() * (topMs - bottomMs);
  }

  #move(state, more = {}) {
    const previous = this.state;
    this.state = state;
    this.#act({ do: 'emit', type: 'state', data: { state, previous, ...more } });
  }
}

/** The size of a frame on the wire, in bytes. */
export function sizeOf(frame) {
  return utf8.encode(JSON.stringify(frame)).length;
}
