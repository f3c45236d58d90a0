/** How the connection is doing, at the top of the page: a chip always, a banner while it is gone. */

import { byId, setText } from './dom.js';
import { openInspector } from './inspector.js';

const BANNER_AFTER_MS = 600; // a reconnect that is quicker than this disturbs nobody
const WORDS = { idle: 'Offline', connecting: 'Connecting', open: 'Live', waiting: 'Reconnecting', closed: 'Offline' };

export function watchConnection(link, renewSession) {
  const chip = byId('connection');
  const text = byId('connection-text');
  const banner = byId('banner');
  const bannerText = byId('banner-text');
  const bannerCount = byId('banner-count'); // not said aloud: it changes every second
  const retry = byId('banner-retry');
  let goneSinceMs = Date.now();

  const render = () => {
    const { state, retryAtMs, latencies } = link;
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
      setText(bannerText, `Disconnected: ${link.lastClose?.reason || 'the server has ended the session'}.`);
    else setText(bannerText, link.attempts ? 'Connection lost; what you send waits.' : 'Connecting…');
    setText(bannerCount, state === 'waiting' && seconds > 1 ? ` Next attempt in ${seconds} s.` : '');
    setText(retry, state === 'closed' ? 'Sign in again' : 'Try now');
  };
  retry.addEventListener('click', () => (link.state === 'closed' ? renewSession() : link.hurry()));
  chip.addEventListener('click', () => openInspector(link));
  link.onChange(render);
  setInterval(render, 500);
  render();
}
