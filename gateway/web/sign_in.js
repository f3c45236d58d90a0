/** Sign-in by name with a development token, or with a pasted token. The identity is kept for this tab: a reload stays signed in. */

import { newToken } from './api.js';
import { byId } from './dom.js';

const KEY = 'realtime.identity';
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** Return the identity of this tab: `{token, userId, firstName, lastName, expiresAt}`, or null. */
export function remembered() {
  try {
    const identity = JSON.parse(sessionStorage.getItem(KEY));
    return Date.parse(identity?.expiresAt) > Date.now() ? identity : null;
  } catch {
    return null;
  }
}

export function forget() {
  sessionStorage.removeItem(KEY);
}

/** Request a new token for the same user. */
export async function renew({ firstName, lastName }) {
  return keep(await newToken(`${firstName} ${lastName}`.trim()));
}

function keep(identity) {
  sessionStorage.setItem(KEY, JSON.stringify(identity));
  return identity;
}

/** Return the identity that a token names, or null for a text that is none. The gateway verifies the token. */
export function identityOf(text) {
  if (!TOKEN.test(text)) return null;
  try {
    const payload = atob(text.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    const bytes = Uint8Array.from(payload, (character) => character.charCodeAt(0));
    const { sub, firstName = '', lastName = '', exp } = JSON.parse(new TextDecoder().decode(bytes));
    return { token: text, userId: sub, firstName, lastName, expiresAt: new Date(exp * 1000).toISOString() };
  } catch {
    return null;
  }
}

/** Show the form and return a promise of the identity. */
export function signIn() {
  const page = byId('sign-in');
  const form = page.querySelector('form');
  const name = byId('sign-in-name');
  const problem = byId('sign-in-error');
  page.hidden = false;
  name.focus();
  return new Promise((resolve) => {
    const submit = async (event) => {
      event.preventDefault();
      problem.textContent = '';
      try {
        const given = name.value.trim();
        const identity = keep(identityOf(given) ?? (await newToken(given)));
        form.removeEventListener('submit', submit);
        page.hidden = true;
        resolve(identity);
      } catch (error) {
        problem.textContent = error.status === 404 ? 'This gateway does not issue development tokens.' : error.message;
      }
    };
    form.addEventListener('submit', submit);
  });
}
