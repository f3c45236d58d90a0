/** Connection inspector: address, latency and recent frames. */

import { openDialog } from './dialogs.js';
import { h, setText } from './dom.js';
import { Sparkline } from './sparkline.js';

const PING_EVERY_MS = 3000;
const REFRESH_EVERY_MS = 1000;

const clock = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 1,
});
const millis = (value) => (value === undefined ? '–' : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);

/** Open the inspector. While it is open, pings are sent more often. */
export function openInspector(connection) {
  const rows = new Map();
  const list = h('dl', { class: 'facts' });
  const fact = (name, text) => {
    if (!rows.has(name)) {
      rows.set(name, h('dd', { class: 'numbers' }));
      list.append(h('dt', {}, name), rows.get(name));
    }
    setText(rows.get(name), text);
  };
  const course = new Sparkline({ wide: true });
  const log = h('ol', { class: 'frame-log numbers', tabindex: '0', 'aria-label': 'Frames, newest first' });
  const render = () => {
    for (const [name, text] of factsOf(connection)) fact(name, text);
    if (connection.latencies.length > 1) course.draw(connection.latencies);
    log.replaceChildren(...connection.log.map(entryOf));
  };
  const ending = [connection.onChange(render)];
  const timers = [
    setInterval(() => connection.isOpen && connection.reconnectOrPing(), PING_EVERY_MS),
    setInterval(render, REFRESH_EVERY_MS),
  ];
  render();
  openDialog({
    title: 'Connection',
    kind: 'side',
    fill: () => [
      list,
      h('h3', { class: 'section-title' }, 'Latency'),
      course.element,
      h('h3', { class: 'section-title' }, 'Frames'),
      log,
    ],
    onClose: () => {
      ending.forEach((end) => end());
      timers.forEach(clearInterval);
    },
  });
  if (connection.isOpen) connection.reconnectOrPing();
}

function entryOf({ type, atMs, count }) {
  const times = count > 1 ? h('span', { class: 'muted' }, ` × ${count}`) : null;
  return h('li', {}, h('time', { class: 'muted' }, clock.format(atMs)), ` ${type}`, times);
}

function factsOf(connection) {
  const { framesIn, framesOut, repeats, reconnects } = connection.stats;
  const sorted = [...connection.latencies].sort((a, b) => a - b);
  const lived = connection.isOpen && connection.openedAtMs ? `, for ${Math.round((Date.now() - connection.openedAtMs) / 1000)} s` : '';
  const facts = [
    ['State', connection.state + lived],
    ['Gateway', connection.url],
    ['Session', connection.welcome?.sessionId ?? '–'],
    ['Latency', `${millis(connection.latencies.at(-1))} now, ${millis(sorted[Math.floor(sorted.length / 2)])} at the median`],
    ['Frames', `${framesIn} in, ${framesOut} out`],
    ['Repeats', `${repeats} dropped`],
    ['Reconnects', String(reconnects)],
  ];
  if (connection.lastClose) facts.push(['Last close', `${connection.lastClose.code ?? 'no code'} ${connection.lastClose.reason}`.trim()]);
  return facts;
}
