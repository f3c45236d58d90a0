/** Observable base class of the state modules; views listen to them. */

export class Observable {
  #listeners = new Set();
  #scheduled = false;

  /** Call `listener` after changes, at most once per animation frame. Returns a function that removes it. */
  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Notify the listeners in the next animation frame, or within 250 ms while the page is hidden. */
  changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const notify = () => {
      this.#scheduled = false;
      for (const listener of [...this.#listeners]) listener();
    };
    if (document.hidden) setTimeout(notify, 250);
    else requestAnimationFrame(notify);
  }
}

/** Return a function that calls `work` once, `delayMs` after the first of any number of calls. */
export function soon(work, delayMs) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, delayMs);
  };
}
