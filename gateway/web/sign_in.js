/** Sign-in by name with a development token. Both are kept for this tab, so a reload stays signed in. */

import { newToken } from './api.js';
import { byId } from './dom.js';

const KEY = 'realtime.identity';

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
        const identity = keep(await newToken(name.value.trim()));
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
