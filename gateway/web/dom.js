/** Elements, made without ever reading HTML: children that are strings become text nodes. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element. `props`: attributes; `on` holds listeners, `data` the dataset; null, undefined and false are left out.
 * Strings and numbers among the children become text, whatever they contain.
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
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

/** The element with this id; it stands in index.html. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set text only where it differs, so that nothing is announced or laid out again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make `parent`'s children those of `items`, in order, keeping an element for as long as its key and version stay.
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
      const focus = element ? focusWithin(element) : -1;
      if (element) {
        if (place === element) place = element.nextElementSibling;
        element.replaceWith(fresh);
      }
      element = fresh;
      if (focus >= 0) fresh.querySelectorAll(FOCUSABLE)[focus]?.focus({ preventScroll: true });
    }
    if (element === place) place = place.nextElementSibling;
    else if (element.nextElementSibling !== place || element.parentElement !== parent)
      parent.insertBefore(element, place);
  }
  for (const gone of before.values()) gone.remove();
}

const FOCUSABLE = 'button, a, input, select, textarea, [tabindex]';

/** Which of an element's controls has the focus, or -1: its successor gets it. */
function focusWithin(element) {
  if (!element.contains(document.activeElement)) return -1;
  return [...element.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
}

/** One tab stop for a list; arrows, Home and End move within it. `selector` finds the stops among `list`'s elements. */
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

/** Say something to those who listen to the page instead of seeing it. */
export function announce(text) {
  byId('announcer').textContent = text;
}
