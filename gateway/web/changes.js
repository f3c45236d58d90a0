/** What can be listened to: state modules extend this, views listen. */

export class Changing {
  #listeners = new Set();
  #scheduled = false;

  /** Call `listener` after changes, once for all of a frame. Returns the function that ends it. */
  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tell the listeners soon: with the next frame, or within a quarter of a second while the page is hidden. */
  changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const tell = () => {
      this.#scheduled = false;
      for (const listener of [...this.#listeners]) listener();
    };
    if (document.hidden) setTimeout(tell, 250);
    else requestAnimationFrame(tell);
  }
}

/** Call `work` once, `delayMs` after the first of any number of calls. */
export function soon(work, delayMs) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, delayMs);
  };
}
