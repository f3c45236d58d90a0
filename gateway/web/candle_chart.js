/** Candle chart in SVG: prices at the right, times below, a line at the last price, a crosshair by pointer or keys. */

import { h, s, setText } from './dom.js';
import { priceOf, timeOf } from './format.js';
import { INTERVALS } from './market.js';
import { rangeOf, ticksOf } from './scales.js';

const HEIGHT = 210;
const BOTTOM = 20;
const TOP = 6;
const TAG_HEIGHT = 18;
const LETTER = 6.6; // width of a digit at the font size of the axes
const TIMES_APART = 78;

const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

export class CandleChart {
  #at = null; // index of the candle under the crosshair

  /** `digits(symbol)` returns the number of decimals of a symbol's prices. */
  constructor(candles, digits) {
    Object.assign(this, { candles, digits });
    this.svg = s('svg', { class: 'candles', tabindex: '0', role: 'img' });
    this.legend = h('p', { class: 'chart-legend numbers' });
    this.element = h('figure', { class: 'chart' }, this.legend, this.svg);
    this.svg.addEventListener('pointermove', (event) => this.#point(event.offsetX));
    this.svg.addEventListener('pointerleave', () => this.#move(null));
    this.svg.addEventListener('blur', () => this.#move(null));
    this.svg.addEventListener('keydown', (event) => this.#key(event));
    candles.onChange(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  #point(x) {
    if (this.step) this.#move(Math.max(0, Math.min(Math.floor(x / this.step), this.candles.list.length - 1)));
  }

  #key(event) {
    const last = this.candles.list.length - 1;
    const at = this.#at ?? last + 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#move(to === null ? null : Math.max(0, Math.min(to, last)));
  }

  #move(at) {
    if (at === this.#at) return;
    this.#at = at;
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth;
    const { list, symbol, state } = this.candles;
    if (!width || !symbol) return;
    const digits = this.digits(symbol);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    if (list.length === 0) {
      this.svg.replaceChildren(
        s(
          'text',
          { x: width / 2, y: HEIGHT / 2, class: 'axis middle' },
          state === 'failed' ? 'No candles' : 'Loading…',
        ),
      );
      setText(this.legend, '');
      return;
    }
    const [low, high] = rangeOf(list);
    const right = Math.ceil(priceOf(high, digits).length * LETTER) + 12;
    const plot = {
      width: width - right,
      y: (price) => TOP + ((high - price) / (high - low)) * (HEIGHT - TOP - BOTTOM),
    };
    this.step = plot.width / Math.max(list.length, 24);
    this.svg.replaceChildren(
      ...this.#grid(plot, low, high, digits, list.at(-1).close),
      ...this.#times(plot, list),
      ...list.map((candle, index) => this.#candle(plot, candle, index)),
      ...this.#last(plot, list.at(-1), digits, right),
      ...this.#crosshair(list),
    );
    this.#describe(list, digits);
  }

  /** Skip the axis label that the label of the last price would cover. */
  #grid(plot, low, high, digits, last) {
    return ticksOf(low, high, 5).flatMap((price) => {
      const y = plot.y(price);
      const line = s('line', { class: 'grid', x1: 0, x2: plot.width, y1: y, y2: y });
      if (Math.abs(y - plot.y(last)) < TAG_HEIGHT) return [line];
      return [line, s('text', { class: 'axis', x: plot.width + 6, y: y + 4 }, priceOf(price, digits))];
    });
  }

  #times(plot, list) {
    const every = Math.ceil(TIMES_APART / this.step);
    const isDaily = INTERVALS[this.candles.interval] >= INTERVALS['1d'];
    return list
      .map((candle, index) => ({ x: (index + 0.5) * this.step, atMs: candle.atMs, index }))
      .filter(({ index, x }) => index % every === 0 && x > 16 && x < plot.width - 16)
      .map(({ x, atMs }) =>
        s('text', { class: 'axis middle', x, y: HEIGHT - 5 }, isDaily ? date.format(atMs) : timeOf(atMs)),
      );
  }

  #candle(plot, { open, high, low, close }, index) {
    const x = (index + 0.5) * this.step;
    const width = Math.max(Math.min(this.step * 0.66, 12), 1);
    const top = plot.y(Math.max(open, close));
    const height = Math.max(plot.y(Math.min(open, close)) - top, 1);
    return s(
      'g',
      { class: close >= open ? 'up' : 'down' },
      s('line', { class: 'wick', x1: x, x2: x, y1: plot.y(high), y2: plot.y(low) }),
      s('rect', { class: 'body', x: x - width / 2, y: top, width, height }),
    );
  }

  #last(plot, { open, close }, digits, right) {
    const y = plot.y(close);
    const kind = close >= open ? 'up' : 'down';
    return [
      s('line', { class: `last ${kind}`, x1: 0, x2: plot.width, y1: y, y2: y }),
      s('rect', {
        class: `last-tag ${kind}`,
        x: plot.width + 1,
        y: y - TAG_HEIGHT / 2,
        width: right - 2,
        height: TAG_HEIGHT,
        rx: 3,
      }),
      s('text', { class: 'last-text', x: plot.width + 6, y: y + 4 }, priceOf(close, digits)),
    ];
  }

  #crosshair(list) {
    if (this.#at === null || !list[this.#at]) return [];
    const x = (this.#at + 0.5) * this.step;
    return [s('line', { class: 'crosshair', x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM })];
  }

  #describe(list, digits) {
    const { atMs, open, high, low, close } = list[this.#at ?? list.length - 1] ?? list.at(-1);
    const isDaily = INTERVALS[this.candles.interval] >= INTERVALS['1d'];
    const [o, hi, lo, c] = [open, high, low, close].map((price) => priceOf(price, digits));
    const text = `${isDaily ? date.format(atMs) : timeOf(atMs)}  O ${o}  H ${hi}  L ${lo}  C ${c}`;
    setText(this.legend, text);
    this.svg.setAttribute(
      'aria-label',
      `${this.candles.symbol}, candles of ${this.candles.interval}. Use the arrow keys. ${text}`,
    );
  }
}
