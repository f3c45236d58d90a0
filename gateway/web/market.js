/** Latest price of each symbol, and a short history for its sparkline. */

import { Observable } from './changes.js';

const POINTS = 60;
const POINT_MS = 60_000; // interval of a sparkline point, which shows its newest price
const HISTORY_AT_ONCE = 4;

export const INTERVALS = { '1m': 60_000, '5m': 300_000, '1h': 3_600_000, '1d': 86_400_000 };

export class Market extends Observable {
  #quotes = new Map();
  #moved = new Map(); // symbol -> 1 or -1, since the last `takeMoved`
  #priceListeners = new Set();
  selected = null;
  interval = '1m';

  constructor(api) {
    super();
    this.api = api;
  }

  /** Load the symbols with their prices; the history of each follows. */
  async load() {
    const [symbols, prices] = await Promise.all([this.api.symbols(), this.api.prices()]);
    for (const { symbol, digits } of symbols) {
      if (!this.#quotes.has(symbol)) this.#quotes.set(symbol, { symbol, digits, price: null, points: [] });
    }
    for (const price of prices) this.take(price);
    this.#moved.clear();
    this.selected ??= this.symbols[0] ?? null;
    this.changed();
    this.#loadHistory([...this.symbols]).catch(() => {}); // the sparkline then starts now
  }

  async #loadHistory(symbols) {
    const load = async () => {
      for (let symbol = symbols.shift(); symbol; symbol = symbols.shift()) {
        const candles = await this.api.candles(symbol, '1m', POINTS);
        const quote = this.#quotes.get(symbol);
        quote.points = [...candles.map(({ close }) => close), ...quote.points].slice(-POINTS);
        this.changed();
      }
    };
    await Promise.all(Array.from({ length: HISTORY_AT_ONCE }, load));
  }

  get symbols() {
    return [...this.#quotes.keys()];
  }

  quote(symbol) {
    return this.#quotes.get(symbol);
  }

  /** Process a live price. */
  take(price) {
    const quote = this.#quotes.get(price.symbol);
    if (!quote) return;
    if (quote.price !== null && price.price !== quote.price)
      this.#moved.set(price.symbol, Math.sign(price.price - quote.price));
    const { price: value, change, changePercent, bid, ask, stale = false } = price;
    Object.assign(quote, { price: value, change, changePercent, bid, ask, stale, atMs: Date.parse(price.timestamp) });
    this.#point(quote);
    for (const listener of this.#priceListeners) listener(quote);
    this.changed();
  }

  #point(quote) {
    const slot = Math.floor(quote.atMs / POINT_MS);
    if (slot === quote.slot) quote.points[quote.points.length - 1] = quote.price;
    else quote.points = [...quote.points, quote.price].slice(-POINTS);
    quote.slot = slot;
  }

  /** Call `listener` synchronously with the quote after each price. */
  onPrice(listener) {
    this.#priceListeners.add(listener);
  }

  /** Return the direction of each price that has moved since the last call. */
  takeMoved() {
    const moved = this.#moved;
    this.#moved = new Map();
    return moved;
  }

  select(symbol) {
    this.selected = symbol;
    this.changed();
  }

  choose(interval) {
    this.interval = interval;
    this.changed();
  }
}
