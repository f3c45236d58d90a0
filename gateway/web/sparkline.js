/** Sparkline: recent prices as one line, without axes. */

import { s } from './dom.js';

const WIDTH = 72;
const HEIGHT = 22;
const MARGIN = 2;

export class Sparkline {
  /** `wide` fills the available width and uses one colour. */
  constructor({ wide = false } = {}) {
    this.line = s('polyline', { class: 'sparkline-line', points: '' });
    this.element = s(
      'svg',
      {
        class: `sparkline${wide ? ' wide' : ''}`,
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: wide ? 'none' : null,
        'aria-hidden': 'true',
        focusable: 'false',
      },
      this.line,
    );
  }

  draw(points) {
    if (points === this.points && points.at(-1) === this.last) return;
    this.points = points;
    this.last = points.at(-1);
    const low = Math.min(...points);
    const span = Math.max(...points) - low || 1;
    const step = WIDTH / Math.max(points.length - 1, 1);
    const y = (price) => HEIGHT - MARGIN - ((price - low) / span) * (HEIGHT - 2 * MARGIN);
    this.line.setAttribute(
      'points',
      points.map((price, index) => `${(index * step).toFixed(1)},${y(price).toFixed(1)}`).join(' '),
    );
    this.element.classList.toggle('down', points.length > 1 && points.at(-1) < points[0]);
  }
}
