/** Connection status at the top of the page: a permanent chip, and a banner while disconnected. */

import { byId, setText } from './dom.js';
import { openInspector } from './inspector.js';

const BANNER_AFTER_MS = 600; // faster reconnects show no banner
const WORDS = { idle: 'Offline', connecting: 'Connecting', open: 'Live', waiting: 'Reconnecting', closed: 'Offline' };

export function watchConnection(connection, renewSession) {
  const chip = byId('connection');
  const text = byId('connection-text');
  const banner = byId('banner');
  const bannerText = byId('banner-text');
  const bannerCount = byId('banner-count'); // hidden from screen readers: it changes every second
  const retry = byId('banner-retry');
  let goneSinceMs = Date.now();

  const render = () => {
    const { state, retryAtMs, latencies } = connection;
    chip.dataset.state = state;
    const latency = latencies.at(-1);
    setText(
      text,
      state === 'open' && latency !== undefined ? `Live · ${Math.max(1, Math.round(latency))} ms` : WORDS[state],
    );
    if (state === 'open') goneSinceMs = null;
    else goneSinceMs ??= Date.now();
    banner.hidden = goneSinceMs === null || Date.now() - goneSinceMs < BANNER_AFTER_MS;
    if (banner.hidden) return;
    const seconds = Math.ceil(((retryAtMs ?? 0) - Date.now()) / 1000);
    if (state === 'closed')
      setText(bannerText, `Disconnected: ${connection.lastClose?.reason || 'the server ended the session'}.`);
    else if (connection.attempts) setText(bannerText, 'Connection lost. Messages are sent after reconnecting.');
    else setText(bannerText, 'Connecting…');
    setText(bannerCount, state === 'waiting' && seconds > 1 ? ` Next attempt in ${seconds} s.` : '');
    setText(retry, state === 'closed' ? 'Sign in again' : 'Try now');
  };
  retry.addEventListener('click', () =>
    connection.state === 'closed' ? renewSession() : connection.reconnectOrPing(),
  );
  chip.addEventListener('click', () => openInspector(connection));
  connection.onChange(render);
  setInterval(render, 500);
  render();
}
