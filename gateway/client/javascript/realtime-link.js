// Link to the server: token, socket, authentication, heartbeat and recovery, without rooms and messages. Pure: frames,
// times (milliseconds of one monotonic clock) and random numbers are inputs, actions are the output.
//
//   idle ── connect ──> connecting (token, socket, auth) ── auth:ok ──> open
//                        ^  │ failure                            │ connection lost
//                        │  v                                    │
//                       waiting <────────────────────────────────┘     any ── close, 4403, … ──> closed

export const LINK_DEFAULTS = Object.freeze({
  backoffFirstMs: 500,
  backoffMaxMs: 30_000,
  connectTimeoutMs: 10_000, // for each step: token, socket, authentication
  answerTimeoutMs: 10_000, // the link is dead if no frame arrives for this long after a request
  heartbeatMs: 0, // 0: the interval that the server announces
});

const STABLE_MS = 5_000; // a connection of this age ends a series of failures
const ABUSE_DELAY_MS = 10_000;
const REFUSALS_MAX = 3;
const RENEW_BEFORE_MS = 60_000;
const RESTORED_IN_AUTH_MAX = 200;
const UNRECOVERABLE_CODES = new Set([1003, 1009, 4400, 4403]);
const RESTARTING_CODES = new Set([null, 1001, 1006, 1012]);
const OVERLOADED = 1013;
const UNAUTHORIZED = 4401;
const RATE_ABUSE = 4429;

const utf8 = new TextEncoder();

export class Link {
  state = 'idle';
  connection = 0; // number of the current connection; 0: none
  isAuthSent = false;
  stats = { framesIn: 0, framesOut: 0, repeats: 0, reconnects: 0, latencyMs: null };
  server = { heartbeatInterval: 30_000, maxMessageBytes: 65_536 };

  #settings;
  #random;
  #act;
  #observer;
  #connections = 0;
  #untilMs = Infinity; // end of the wait, or deadline of the connection attempt
  #attempt = 0;
  #openedAtMs = 0;
  #wasOpen = false;
  #drainMs = null;
  #token;
  #canRefresh;
  #isFetchingToken = false;
  #refusals = 0;
  #tokenExpiresAtMs = Infinity;
  #renewAtMs = Infinity;
  #pingAtMs = Infinity;
  #pings = new Map(); // id → time sent
  #frameByMs = Infinity;

  /**
   * `act` receives the actions. `observer` has `restore()`, which returns the subscribe frames for a new connection,
   * `disconnected()` and `stopped(code, reason)`.
   */
  constructor({ token = null, canRefresh = false, random = Math.random, ...settings }, act, observer) {
    this.#settings = settings;
    this.#token = token;
    this.#canRefresh = canRefresh;
    this.#random = random;
    this.#act = act;
    this.#observer = observer;
  }

  get isOpen() {
    return this.state === 'open';
  }

  /** The time by which the shell must call `tick`. */
  get deadlineMs() {
    return this.isOpen ? Math.min(this.#pingAtMs, this.#frameByMs, this.#renewAtMs) : this.#untilMs;
  }

  connect(nowMs) {
    if (['idle', 'closed', 'waiting'].includes(this.state)) {
      this.#refusals = 0;
      this.#begin(nowMs);
    }
  }

  close() {
    if (this.state !== 'closed') {
      this.#stop(1000, 'closed by the application');
    }
  }

  /** Reconnect or ping at once: the network is back or the page is visible again, and an open link may be dead. */
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

  /** Send a frame that the server answers, and expect a frame within answerTimeoutMs. */
  ask(frame, nowMs) {
    this.#frameByMs = Math.min(this.#frameByMs, nowMs + this.#settings.answerTimeoutMs);
    this.send(frame);
  }

  tokenReady(token, nowMs) {
    this.#token = token;
    this.#tokenExpiresAtMs = Infinity;
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
    if (this.isCurrent(connection) && !this.isOpen) {
      this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
      this.#authenticate();
    }
  }

  closed(connection, code, reason, nowMs) {
    if (this.isCurrent(connection)) {
      this.#lost(code, reason, nowMs);
    }
  }

  /** Return whether a report concerns the current connection. */
  isCurrent(connection) {
    return connection !== 0 && connection === this.connection;
  }

  /** Process the connection's part of a frame; null stands for an unreadable frame, a sign of life as well. */
  frameReceived(frame, nowMs) {
    this.#frameByMs = Infinity;
    this.stats.framesIn += 1;
    if (frame?.type === 'auth:ok') {
      this.#authenticated(frame.data, nowMs);
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
      this.#drop('connection attempt timed out', nowMs);
    } else if (this.#frameByMs <= nowMs) {
      this.#drop('no frame from the server', nowMs);
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

  // Connection set-up ------------------------------------------------------------------------------------------------

  #begin(nowMs) {
    this.#move('connecting');
    this.#untilMs = nowMs + this.#settings.connectTimeoutMs;
    if (this.#token === null || (this.#canRefresh && this.#tokenExpiresAtMs <= nowMs)) {
      this.#fetchToken(this.#refusals > 0 ? 'refused' : 'connect');
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

  /** Restore the subscriptions in the auth frame; send those that do not fit in separate frames. */
  #authenticate() {
    this.isAuthSent = true;
    const frame = { type: 'auth', token: this.#token, id: 'auth' };
    const entries = this.#observer.restore();
    let freeBytes = this.server.maxMessageBytes - sizeOf({ ...frame, subscriptions: [] });
    const firstOver = entries.findIndex((entry) => (freeBytes -= sizeOf(entry) + 1) < 0);
    const count = Math.min(firstOver < 0 ? entries.length : firstOver, RESTORED_IN_AUTH_MAX);
    this.send(count === 0 ? frame : { ...frame, subscriptions: entries.slice(0, count) });
    entries.slice(count).forEach((entry) => this.send(entry));
  }

  #authenticated(data, nowMs) {
    this.server = { ...this.server, ...data };
    const lifeMs = Date.parse(data.expiresAt) - Date.parse(data.serverTime); // the client's clock may be wrong
    const renewInMs = lifeMs - Math.min(RENEW_BEFORE_MS, lifeMs / 4);
    this.#renewAtMs = this.#canRefresh && renewInMs >= 0 ? nowMs + renewInMs : Infinity;
    this.#tokenExpiresAtMs = Number.isFinite(lifeMs) ? nowMs + lifeMs : Infinity;
    this.#refusals = 0;
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

  // Connection loss --------------------------------------------------------------------------------------------------

  #drop(reason, nowMs) {
    this.#act({ do: 'drop', code: 4000 });
    this.#lost(null, reason, nowMs);
  }

  #lost(code, reason, nowMs) {
    if (this.isOpen && nowMs - this.#openedAtMs >= STABLE_MS) {
      this.#attempt = 0;
    }
    this.#disconnect();
    if (UNRECOVERABLE_CODES.has(code)) {
      this.#stop(code, reason);
    } else if (code === UNAUTHORIZED) {
      this.#tokenRefused(reason, nowMs);
    } else if (this.#drainMs !== null && RESTARTING_CODES.has(code)) {
      this.#wait(this.#drainMs, code, reason, nowMs);
    } else {
      const minimumMs = code === RATE_ABUSE ? ABUSE_DELAY_MS : code === OVERLOADED ? this.#settings.backoffFirstMs : 0;
      this.#wait(minimumMs + this.#backoffMs(), code, reason, nowMs);
    }
  }

  #disconnect() {
    this.connection = 0;
    this.isAuthSent = false;
    this.#pingAtMs = this.#frameByMs = this.#renewAtMs = Infinity;
    this.#observer.disconnected();
  }

  #tokenRefused(reason, nowMs) {
    this.#refusals += 1;
    if (!this.#canRefresh || this.#refusals > REFUSALS_MAX) {
      this.#stop(UNAUTHORIZED, reason);
      return;
    }
    this.#token = null;
    this.#wait(this.#backoffMs(), UNAUTHORIZED, reason, nowMs);
  }

  #wait(delayMs, code, reason, nowMs) {
    this.#untilMs = nowMs + delayMs;
    this.#isFetchingToken = false; // a fetch in progress may hang
    this.#move('waiting', { code, reason, retryInMs: Math.round(delayMs) });
  }

  #stop(code, reason) {
    this.#disconnect();
    this.#untilMs = Infinity;
    this.#attempt = 0;
    this.#isFetchingToken = false;
    this.#act({ do: 'drop', code: 1000 });
    this.#move('closed', { code, reason });
    this.#observer.stopped(code, reason);
  }

  /** The next delay: doubles per attempt; the first is random from zero, so that clients do not return all at once. */
  #backoffMs() {
    const { backoffFirstMs, backoffMaxMs } = this.#settings;
    const ceilingMs = Math.min(backoffFirstMs * 2 ** this.#attempt, backoffMaxMs);
    const floorMs = this.#attempt === 0 ? 0 : ceilingMs / 2;
    this.#attempt += 1;
    return floorMs + this.#random() * (ceilingMs - floorMs);
  }

  #move(state, more = {}) {
    const previous = this.state;
    this.state = state;
    this.#act({ do: 'emit', type: 'state', data: { state, previous, ...more } });
  }
}

/** Return the size of a frame on the wire, in bytes. */
export function sizeOf(frame) {
  return utf8.encode(JSON.stringify(frame)).length;
}
