/** Messages as the page holds them, and the effects of changes on them. Pure: a changed message is a new object. */

const EXCERPT_MAX = 200; // code points, as in the previews that the server makes

const msOf = (time) => (time ? Date.parse(time) : null);

/** Convert a message from REST or from the live stream into one shape. `changedRev`: the last change it contains. */
export function messageOf(raw) {
  return {
    id: raw.id ?? raw.messageId,
    seq: raw.seq,
    changedRev: raw.rev ?? 0,
    userId: raw.userId,
    user: raw.user,
    text: raw.message,
    atMs: Date.parse(raw.createdAt ?? raw.timestamp),
    clientMessageId: raw.clientMessageId,
    replyTo: raw.replyTo
      ? { messageId: raw.replyTo.messageId, userId: raw.replyTo.userId, text: raw.replyTo.message, rev: 0 }
      : null,
    mentions: raw.mentions ?? [],
    mentionsRoom: raw.mentionRoom === true,
    attachments: raw.attachments ?? [],
    reactions: (raw.reactions ?? []).map(({ emoji, count, mine = false }) => ({ emoji, count, mine })),
    editedAtMs: msOf(raw.editedAt),
    deletedAtMs: msOf(raw.deletedAt),
    deletedBy: raw.deletedBy ?? null,
  };
}

/**
 * Return the message after a change `{type, data}` of the log, or the same object if the change concerns neither it nor
 * its quote, or is already included. `me` is the user whose reactions are marked.
 */
export function changedBy(message, change, me) {
  const { type, data } = change;
  if (message.replyTo?.messageId === data.messageId) {
    const replyTo = quoteAfter(message.replyTo, change);
    return replyTo === message.replyTo ? message : { ...message, replyTo };
  }
  if (message.id !== data.messageId || message.deletedAtMs || data.rev <= message.changedRev) return message;
  switch (type) {
    case 'chat:updated':
      return {
        ...message,
        changedRev: data.rev,
        text: data.message,
        editedAtMs: msOf(data.editedAt),
        mentions: data.mentions ?? [], // left out when the edit leaves none
      };
    case 'chat:deleted':
      return buried(message, data);
    case 'chat:reaction':
      return { ...message, changedRev: data.rev, reactions: reactionsAfter(message, data, me) };
    default:
      return message;
  }
}

/** Return the first part of a text, as previews show it. */
export function excerptOf(text) {
  const letters = [...text];
  return letters.length > EXCERPT_MAX ? letters.slice(0, EXCERPT_MAX).join('') : text;
}

/** Return a quote `{messageId, userId, text, rev}` after a change, or the same object if its text is not affected. */
export function quoteAfter(quote, { type, data: { messageId, rev, message: text } }) {
  if (quote.messageId !== messageId || rev <= quote.rev) return quote;
  if (type === 'chat:updated') return { ...quote, rev, text: excerptOf(text) };
  if (type === 'chat:deleted') return { ...quote, rev, text: '' };
  return quote;
}

function buried(message, { rev, deletedAt, deletedBy }) {
  return {
    ...message,
    changedRev: rev,
    text: '',
    replyTo: null,
    mentions: [],
    mentionsRoom: false,
    attachments: [],
    reactions: [],
    editedAtMs: null,
    deletedAtMs: msOf(deletedAt),
    deletedBy,
  };
}

function reactionsAfter(message, { reactions, changes = [] }, me) {
  const mine = new Set(message.reactions.filter((one) => one.mine).map(({ emoji }) => emoji));
  for (const { userId, emoji, added } of changes) {
    if (userId !== me) continue;
    if (added) mine.add(emoji);
    else mine.delete(emoji);
  }
  return reactions.map(({ emoji, count }) => ({ emoji, count, mine: mine.has(emoji) }));
}
