/** Market board: prices with flashes, changes and sparklines, and the candles of the selected symbol below. */

import { AlertsView } from './alerts_view.js';
import { CandleChart } from './candle_chart.js';
import { Candles } from './candles.js';
import { h, rove, setText } from './dom.js';
import { percentOf, priceOf } from './format.js';
import { INTERVALS } from './market.js';
import { Sparkline } from './sparkline.js';

const FLASH_MS = 450;

export class MarketBoard {
  #rows = new Map();

  constructor(root, session) {
    this.session = session;
    const { market } = session;
    this.candles = new Candles(session.api);
    this.chart = new CandleChart(this.candles, (symbol) => market.quote(symbol)?.digits ?? 2);
    this.chosen = h('h2', { class: 'chosen' });
    this.price = h('span', { class: 'chosen-price numbers' });
    this.change = h('span', { class: 'change numbers' });
    this.spread = h('span', { class: 'muted small numbers' });
    const columns = h(
      'tr',
      {},
      h('th', { scope: 'col' }, 'Symbol'),
      h('th', { scope: 'col' }, h('span', { class: 'visually-hidden' }, 'Course')),
      h('th', { scope: 'col', class: 'number' }, 'Price'),
      h('th', { scope: 'col', class: 'number' }, 'Day'),
    );
    this.body = h('tbody');
    this.table = h(
      'table',
      { class: 'board' },
      h('caption', { class: 'visually-hidden' }, 'Prices'),
      h('thead', {}, columns),
      this.body,
    );
    this.alerts = new AlertsView(session);
    const head = h('div', { class: 'chosen-head' }, this.chosen, this.price, this.change, this.spread);
    root.replaceChildren(
      h(
        'div',
        { class: 'market-scroll', tabindex: '-1' },
        h('section', { class: 'chart-panel' }, head, this.#intervals(), this.chart.element),
        this.table,
        this.alerts.element,
      ),
    );
    this.settle = rove(this.body, 'button.symbol');
    market.onPrice((quote) => this.candles.take(quote));
    market.onChange(() => this.#render());
    this.#render();
  }

  #intervals() {
    const { market } = this.session;
    const radios = Object.keys(INTERVALS).map((interval) =>
      h(
        'label',
        { class: 'segment' },
        h('input', {
          type: 'radio',
          name: 'interval',
          value: interval,
          checked: interval === market.interval,
          on: { change: () => market.choose(interval) },
        }),
        h('span', {}, interval),
      ),
    );
    return h('fieldset', { class: 'segments' }, h('legend', { class: 'visually-hidden' }, 'Candle length'), radios);
  }

  #render() {
    const { market } = this.session;
    for (const symbol of market.symbols) if (!this.#rows.has(symbol)) this.#addRow(symbol);
    const moved = market.takeMoved();
    for (const [symbol, row] of this.#rows) this.#fill(row, market.quote(symbol), moved.get(symbol));
    this.#settleOnce(market);
    this.#renderChosen();
  }

  /** Renew the tab stop if the symbols or the selection have changed; not on every render, since it forces a layout. */
  #settleOnce({ symbols, selected }) {
    const reach = `${symbols.length} ${selected}`;
    if (reach === this.reach) return;
    this.reach = reach;
    this.settle();
  }

  #addRow(symbol) {
    const sparkline = new Sparkline();
    const name = h(
      'button',
      { type: 'button', class: 'symbol', tabindex: '-1', on: { click: () => this.session.market.select(symbol) } },
      symbol,
    );
    const price = h('span', { class: 'price' });
    const change = h('span', { class: 'change' });
    const row = h(
      'tr',
      {},
      h('th', { scope: 'row' }, name),
      h('td', {}, sparkline.element),
      h('td', { class: 'number numbers' }, price),
      h('td', { class: 'number numbers' }, change),
    );
    row.addEventListener('click', () => this.session.market.select(symbol));
    this.body.append(row);
    this.#rows.set(symbol, { row, name, price, change, sparkline });
  }

  #fill({ row, name, price, change, sparkline }, quote, direction) {
    const isChosen = quote.symbol === this.session.market.selected;
    name.ariaCurrent = isChosen ? 'true' : null;
    row.classList.toggle('chosen-row', isChosen);
    row.classList.toggle('stale', quote.stale === true);
    if (quote.price === null) return;
    setText(price, priceOf(quote.price, quote.digits));
    setText(change, percentOf(quote.changePercent));
    colour(change, quote.changePercent);
    sparkline.draw(quote.points);
    if (direction) flash(price, direction);
  }

  #renderChosen() {
    const { market } = this.session;
    const quote = market.quote(market.selected);
    if (!quote) return;
    if (this.candles.symbol !== market.selected || this.candles.interval !== market.interval)
      this.candles.load(market.selected, market.interval);
    setText(this.chosen, quote.symbol);
    if (quote.price === null) return;
    setText(this.price, priceOf(quote.price, quote.digits));
    setText(this.change, `${percentOf(quote.changePercent)}`);
    colour(this.change, quote.changePercent);
    const sides = [quote.bid, quote.ask].every(Number.isFinite)
      ? `${priceOf(quote.bid, quote.digits)} / ${priceOf(quote.ask, quote.digits)}`
      : '';
    setText(this.spread, quote.stale ? 'stale' : sides);
    this.alerts.suggest(quote);
  }
}

/** Set the colour class of a change; 0.00 % has none. */
function colour(element, percent) {
  element.classList.toggle('up', percent >= 0.005);
  element.classList.toggle('down', percent <= -0.005);
}

/** Flash the background of a price that has moved, unless the user prefers reduced motion. */
function flash(element, direction) {
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  const wash = direction > 0 ? 'var(--wash-up)' : 'var(--wash-down)';
  element.animate([{ backgroundColor: wash }, { backgroundColor: 'transparent' }], {
    duration: FLASH_MS,
    easing: 'ease-out',
  });
}
