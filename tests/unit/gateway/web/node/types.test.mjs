import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { RealtimeClient } from '../../../../../gateway/client/javascript/realtime.js';
import { DEFAULTS } from '../../../../../gateway/client/javascript/realtime-core.js';

const declarations = readFileSync(new URL('../../../../../gateway/client/javascript/realtime.d.ts', import.meta.url), 'utf8');

function members(declaration) {
  const [, body] = declarations.match(new RegExp(`${declaration} \\{\\n(.*?)\\n\\}`, 's'));
  const names = [...body.matchAll(/^ {2}(?:readonly )?(\w+)[?<(:]/gm)].map(([, name]) => name);
  return [...new Set(names)].sort();
}

test('realtime.d.ts declares the members of the class', () => {
  const client = new RealtimeClient('key', 'token', { url: 'ws://127.0.0.1/v1/live' });
  const names = [...Object.getOwnPropertyNames(RealtimeClient.prototype), ...Object.keys(client)];
  assert.deepEqual(members('export class RealtimeClient'), names.sort());
});

test('realtime.d.ts declares the existing options', () => {
  assert.deepEqual(members('export interface Options'), ['WebSocket', 'url', ...Object.keys(DEFAULTS)].sort());
});

test('url is completed, and required outside a page', () => {
  const url = (given) => new RealtimeClient('key', 'token', { url: given }).url;
  assert.equal(url('http://127.0.0.1:8080'), 'ws://127.0.0.1:8080/v1/live');
  assert.equal(url('https://example.com/'), 'wss://example.com/v1/live');
  assert.equal(url('wss://example.com/other/live'), 'wss://example.com/other/live');
  assert.throws(() => url(undefined), TypeError);
});
