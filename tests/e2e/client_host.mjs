// Many JavaScript clients in one Node process, driven by JSON lines: each line is {call, client, do, args}, and
// is answered by {"type": "result", "call", "data"} or {…, "error"}. What the clients' handlers get is printed as
// {"type": "event", "client", "event", "data"}.
//
// `new` makes one of ours; `published` makes one of the class that the product's owner published, unmodified.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { RealtimeClient } from '../../gateway/client/javascript/realtime.js';

const PUBLISHED_URL = 'ws://api.yourdomain.com/v1/live';
const PUBLISHED_EVENTS = ['auth:ok', 'subscribed', 'chat:message', 'error'];
const Native = globalThis.WebSocket;
const source = readFileSync(new URL('realtime_client.verbatim.js', import.meta.url), 'utf8');
const Published = new Function('WebSocket', 'console', `return (${source})`)(
  class extends Native {
    constructor(url) {
      super(url === PUBLISHED_URL ? process.env.GATEWAY_WS_URL : url);
    }
  },
  { ...console, log() {}, error() {} },
);

const clients = new Map();
const print = (fields) => process.stdout.write(`${JSON.stringify(fields)}\n`);

const special = {
  new(name, url, token, options) {
    const client = new RealtimeClient('no key is needed', token, { url, ...options });
    clients.set(name, client);
    client.on('*', (event, data) => print({ type: 'event', client: name, event, data }));
    client.connect();
  },
  published(name, token) {
    const client = new Published('no key is needed', token);
    clients.set(name, client);
    PUBLISHED_EVENTS.forEach((event) => {
      client.on(event, (data) => print({ type: 'event', client: name, event, data }));
    });
    client.connect();
  },
  stats: (name) => clients.get(name).stats,
};

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { call, client, do: what, args } = JSON.parse(line);
  try {
    const act = special[what] ? () => special[what](client, ...args) : () => clients.get(client)[what](...args);
    print({ type: 'result', call, data: (await act()) ?? null });
  } catch (error) {
    const { code = error.name, message, retryable = false, closeCode = null } = error;
    print({ type: 'result', call, error: { code, message, retryable, closeCode } });
  }
});
