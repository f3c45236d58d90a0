/** The user's permissions on a message, as the page knows them; the server decides. Pure. */

const EDIT_WINDOW_MS = 86_400_000; // the server's default; a shorter one refuses by itself

const RANKS = { member: 0, moderator: 1, creator: 2 };

export function mayEdit(message, me, nowMs = Date.now()) {
  return message.userId === me && !message.deletedAtMs && nowMs - message.atMs < EDIT_WINDOW_MS;
}

/** `role` is the user's, `authorRole` the author's; in a direct room users may delete only their own messages. */
export function mayDelete(message, me, { role, authorRole, isDirect }) {
  if (message.deletedAtMs) return false;
  return message.userId === me || (!isDirect && RANKS[role] > RANKS[authorRole]);
}

/** Return whether the user may pin messages. */
export function mayPin({ role, isDirect }) {
  return isDirect || isModerator(role);
}

/** Return whether a role is moderator or above: these may pin messages and mention everybody with `@room`. */
export function isModerator(role) {
  return RANKS[role] >= RANKS.moderator;
}
