/** View of price alerts: a form, and the list of active and fired alerts. */

import { h, reconcile } from './dom.js';
import { field, form } from './dialogs.js';
import { priceOf, timeOf } from './format.js';
import { icon } from './icons.js';

export class AlertsView {
  #suggestedFor = null;

  constructor(session) {
    this.session = session;
    this.symbol = h('select', { name: 'symbol' });
    this.direction = h(
      'select',
      { name: 'direction' },
      h('option', { value: 'above' }, 'at or above'),
      h('option', { value: 'below' }, 'at or below'),
    );
    this.price = h('input', {
      name: 'price',
      type: 'number',
      step: 'any',
      min: '0',
      required: true,
      inputmode: 'decimal',
    });
    this.list = h('ul', { class: 'alert-list' });
    const fields = [
      h(
        'div',
        { class: 'alert-fields' },
        field('Symbol', this.symbol),
        field('When', this.direction),
        field('Price', this.price),
      ),
    ];
    const create = ({ symbol, direction, price }) => session.alerts.create({ symbol, direction, price: Number(price) });
    this.element = h(
      'section',
      { class: 'alerts-panel', 'aria-label': 'Price alerts' },
      h('h2', { class: 'section-title' }, 'Price alerts'),
      form({ fields, label: 'Set alert', submit: create }),
      this.list,
    );
    session.alerts.onChange(() => this.#render());
    session.market.onChange(() => this.#renderSymbols());
    this.#render();
  }

  #renderSymbols() {
    const { symbols } = this.session.market;
    if (this.symbol.options.length !== symbols.length)
      this.symbol.replaceChildren(...symbols.map((symbol) => h('option', {}, symbol)));
  }

  /** Prefill the selected symbol and its price once per selection, so that user input is never overwritten. */
  suggest({ symbol, price, digits }) {
    if (symbol === this.#suggestedFor) return;
    this.#suggestedFor = symbol;
    this.#renderSymbols();
    this.symbol.value = symbol;
    this.price.value = price.toFixed(digits);
  }

  #render() {
    const { alerts, market, notify } = this.session;
    const row = ({ id, symbol, direction, price, status, firedAt }) => ({
      key: id,
      version: status,
      make: () => {
        const digits = market.quote(symbol)?.digits ?? 2;
        const text = `${symbol} ${direction} ${priceOf(price, digits)}`;
        const remove = () => alerts.remove(id).catch((error) => notify(error.message, 'error'));
        return h(
          'li',
          { class: `alert ${status}` },
          h('span', { class: 'numbers' }, text),
          h('span', { class: 'tag' }, status === 'fired' ? `fired ${timeOf(Date.parse(firedAt))}` : 'active'),
          h(
            'button',
            { type: 'button', class: 'icon-button small', 'aria-label': `Delete alert ${text}`, on: { click: remove } },
            icon('close'),
          ),
        );
      },
    });
    reconcile(this.list, alerts.entries.map(row));
  }
}
