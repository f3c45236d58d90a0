/** Ids that nobody else makes. `crypto.randomUUID` is not there on pages without TLS, as in a local network. */

export function uid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
