/** Random unique ids. `crypto.randomUUID` does not exist on pages without TLS, for example in a local network. */

export function uid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
