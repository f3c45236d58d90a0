/** Icons of the page, in the colour of the surrounding text. */

import { s } from './dom.js';

const PATHS = {
  bell: 'M10 3a5 5 0 0 0-5 5v3l-1.5 3h13L15 11V8a5 5 0 0 0-5-5zM8 16.5a2 2 0 0 0 4 0',
  sun: 'M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M4.3 15.7l1.1-1.1M14.6 5.4l1.1-1.1',
  moon: 'M16 11.5A6.5 6.5 0 1 1 8.500 4a5.200 5.200 0 0 0 7.500 7.500z',
  auto: 'M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM10 3v14M10 6l4.500 2M10 10h7M10 14l4.500-1',
  lock: 'M5.500 9h9v7.500h-9zM7 9V6.500a3 3 0 0 1 6 0V9',
  hash: 'M8 3.500 6.500 16.500M13.500 3.500 12 16.500M4 7.500h13M3 12.500h13',
  group:
    'M7.500 9.500a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5zM2.500 16a5 5 0 0 1 10 0M13 9.500a2.300 2.300 0 1 0-.5-4.500M14.500 11.500a5 5 0 0 1 3 4.500',
  plus: 'M10 4v12M4 10h12',
  back: 'M12.500 4 6.500 10l6 6',
  close: 'M5 5l10 10M15 5 5 15',
  send: 'M3.500 10 17 3.500 12.500 17l-3-5.500z',
  chat: 'M3.500 4.500h13v9H9l-4 3v-3H3.500z',
  chart: 'M3 16.500h14M5.500 13V8M9.500 13V4.500M13.500 13V9.500',
  down: 'M10 4v11M5 10.500l5 5 5-5',
  trash: 'M4 5.500h12M8 5.500V4h4v1.500M5.500 5.500l1 11h7l1-11',
};

/** Return an icon by name, hidden from screen readers. */
export function icon(name) {
  return s(
    'svg',
    { class: 'icon', viewBox: '0 0 20 20', 'aria-hidden': 'true', focusable: 'false' },
    s('path', { d: PATHS[name] }),
  );
}
