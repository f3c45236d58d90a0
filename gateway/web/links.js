/** Links to messages: `#/rooms/<room>/<message>`. Pure. */

/** Return the address of a message, or of a room. */
export function linkTo(roomId, messageId, base = location.href) {
  const address = new URL(base);
  address.hash = `/rooms/${[roomId, messageId].filter(Boolean).map(encodeURIComponent).join('/')}`;
  return address.href;
}

/** Return the target that the fragment of an address names: `{roomId, messageId}`, or null. */
export function linkedIn(hash) {
  const [, roomId, messageId = null] = hash.match(/^#\/rooms\/([^/]+)(?:\/([^/]+))?$/) ?? [];
  if (!roomId) return null;
  try {
    return { roomId: decodeURIComponent(roomId), messageId: messageId && decodeURIComponent(messageId) };
  } catch {
    return null; // broken percent-encoding
  }
}
