/** Price alerts of the signed-in user. */

import { Observable } from './changes.js';

export class Alerts extends Observable {
  entries = []; // newest first, as REST returns them

  constructor(api) {
    super();
    this.api = api;
  }

  async load() {
    this.entries = await this.api.alerts();
    this.changed();
  }

  /** Create an alert: `{symbol, direction: "above"|"below", price}`. */
  async create(alert) {
    this.entries = [await this.api.createAlert(alert), ...this.entries];
    this.changed();
  }

  async remove(id) {
    await this.api.deleteAlert(id);
    this.entries = this.entries.filter((alert) => alert.id !== id);
    this.changed();
  }
}
