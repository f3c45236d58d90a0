/** Formatting of numbers and times. */

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short' });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

const DAY_MS = 86_400_000;

/** 14:05 */
export const timeOf = (atMs) => clock.format(atMs);

/** Full date and time, for titles. */
export const fullTimeOf = (atMs) => full.format(atMs);

/** Today, Yesterday, or Tue, Nov 24. */
export function dayOf(atMs, nowMs = Date.now()) {
  const midnight = new Date(nowMs).setHours(0, 0, 0, 0);
  if (atMs >= midnight) return 'Today';
  if (atMs >= midnight - DAY_MS) return 'Yesterday';
  return day.format(atMs);
}

/** now, 5 min, 3 h, or the day. */
export function agoOf(atMs, nowMs = Date.now()) {
  const minutes = Math.floor((nowMs - atMs) / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h`;
  return day.format(atMs);
}

const numbers = new Map();

/** A price with the decimals of its symbol, grouped: 65,000.00 */
export function priceOf(price, digits) {
  if (!numbers.has(digits)) {
    numbers.set(digits, new Intl.NumberFormat('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return numbers.get(digits).format(price);
}

/** +0.23% or −1.50%, with a real minus sign. */
export function percentOf(percent) {
  const digits = Math.abs(percent).toFixed(2);
  const sign = Number(digits) === 0 ? '' : percent > 0 ? '+' : '−';
  return `${sign}${digits}%`;
}

/** 12.3k */
export function shortCount(count) {
  return count < 1000 ? String(count) : `${(count / 1000).toFixed(count < 10_000 ? 1 : 0)}k`;
}

/** 1 member, 2 members */
export const counted = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
