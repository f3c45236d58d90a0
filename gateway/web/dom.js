/** DOM helpers that never parse HTML: strings become text nodes. */

const SVG = 'http://www.w3.org/2000/svg';
const ANNOUNCED_MS = 800;

/**
 * Create an element. `props`: attributes, with `on` for listeners and `data` for the dataset; null, undefined and
 * false are omitted. Strings and numbers among the children become text, whatever they contain.
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Create an SVG element, as `h` does for HTML. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === 'data') Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return the element with this id from index.html. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set text only if it differs, which avoids needless announcements and layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Update the children of `parent` to match `items`, in order. An element is reused while its key and version are equal.
 * Each item: `{key, version, make()}`.
 */
export function reconcile(parent, items) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    let element = before.get(item.key);
    before.delete(item.key);
    if (!element || element.dataset.version !== String(item.version)) {
      const fresh = item.make();
      fresh.dataset.key = item.key;
      fresh.dataset.version = item.version;
      const hasFocus = element && element === document.activeElement;
      const focus = element ? focusWithin(element) : -1;
      if (element) {
        if (place === element) place = element.nextElementSibling;
        element.replaceWith(fresh);
      }
      element = fresh;
      if (hasFocus) fresh.focus({ preventScroll: true });
      if (focus >= 0) fresh.querySelectorAll(FOCUSABLE)[focus]?.focus({ preventScroll: true });
    }
    if (element === place) place = place.nextElementSibling;
    else if (element.nextElementSibling !== place || element.parentElement !== parent)
      parent.insertBefore(element, place);
  }
  for (const gone of before.values()) gone.remove();
}

let pressed = null; // the element under a pointer that is down
const held = new Map(); // renderings that wait for it, by root

/**
 * Call `render` now, or once the pointer that is down within `root` is up: a click on an element that is replaced
 * between pointer down and pointer up would be lost.
 */
export function whenReleased(root, render) {
  if (pressed && root.contains(pressed)) held.set(root, render);
  else render();
}

function release() {
  pressed = null;
  const renders = [...held.values()];
  held.clear();
  for (const render of renders) render();
}

/** Watch the pointer for `whenReleased`; call it once. */
export function watchPointer() {
  addEventListener('pointerdown', ({ target }) => (pressed = target), true);
  addEventListener('click', () => (pressed = null), true); // what a click changes is rendered at once
  for (const type of ['pointerup', 'pointercancel']) addEventListener(type, () => setTimeout(release), true);
}

const FOCUSABLE = 'button, a, input, select, textarea, [tabindex]';

/** Return the index of the focused control of an element, or -1; the replacement restores the focus. */
function focusWithin(element) {
  if (!element.contains(document.activeElement)) return -1;
  return [...element.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
}

/** Make a list one tab stop; arrows, Home and End move within it. `selector` matches the focusable elements. */
export function rove(list, selector) {
  const stops = () => [...list.querySelectorAll(selector)].filter((stop) => stop.offsetParent !== null);
  list.addEventListener('keydown', (event) => {
    const all = stops();
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const stop = all[Math.max(0, Math.min(to, all.length - 1))];
    settle(all, stop);
    stop.focus();
  });
  return () => {
    const all = stops();
    settle(all, all.find((stop) => stop === document.activeElement || stop.ariaCurrent === 'true') ?? all[0]);
  };
}

function settle(all, stop) {
  for (const one of all) one.tabIndex = one === stop ? 0 : -1;
}

let announced = null; // timer

/**
 * Announce a text to screen readers. The text is removed soon, since it may be the text of a message, which can be
 * deleted.
 */
export function announce(text) {
  const announcer = byId('announcer');
  announcer.textContent = text;
  clearTimeout(announced);
  announced = setTimeout(() => announcer.replaceChildren(), ANNOUNCED_MS);
}
