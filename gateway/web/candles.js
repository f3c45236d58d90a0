/** Candles of one symbol, updated by its live prices. */

import { Observable } from './changes.js';
import { INTERVALS } from './market.js';

const CANDLES = 90;

export class Candles extends Observable {
  list = []; // oldest first: {atMs, open, high, low, close}
  symbol = null;
  interval = null;
  state = 'loading'; // loading, ready, failed

  constructor(api) {
    super();
    this.api = api;
  }

  /** Show another symbol or interval. The answer to an outdated request is dropped. */
  async load(symbol, interval) {
    Object.assign(this, { symbol, interval, list: [], state: 'loading' });
    this.changed();
    try {
      const candles = await this.api.candles(symbol, interval, CANDLES);
      if (symbol !== this.symbol || interval !== this.interval) return;
      const live = this.list;
      this.list = candles.map(({ openTime, open, high, low, close }) => ({
        atMs: Date.parse(openTime),
        open,
        high,
        low,
        close,
      }));
      for (const candle of live) this.#merge(candle);
      this.state = 'ready';
    } catch {
      if (symbol === this.symbol && interval === this.interval) this.state = 'failed';
    }
    this.changed();
  }

  #merge(candle) {
    const last = this.list.at(-1);
    if (!last || candle.atMs > last.atMs) this.list.push(candle);
    else if (candle.atMs === last.atMs)
      Object.assign(last, {
        high: Math.max(last.high, candle.high),
        low: Math.min(last.low, candle.low),
        close: candle.close,
      });
  }

  /** Process a live price of any symbol. */
  take({ symbol, price, atMs }) {
    if (symbol !== this.symbol) return;
    const length = INTERVALS[this.interval];
    this.#merge({ atMs: atMs - (atMs % length), open: price, high: price, low: price, close: price });
    if (this.list.length > CANDLES) this.list.shift();
    this.changed();
  }
}
