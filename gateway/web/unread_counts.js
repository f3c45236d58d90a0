/**
 * Unread messages and mentions of one room, from REST, live messages and the channel `activity`. Pure functions on a
 * record `{lastSeq, readSeq, activitySeq, mentionCount, lastMessageAt, isRough}`.
 *
 * `activitySeq` is the last message that `activity` named: the counts of `room:unread` include messages up to it. The
 * seqs of a rough record are unknown; only their difference is known: the number of unread messages.
 */

/** Return the record of a room of which nothing is known yet. */
export function unknownCounts() {
  return { lastSeq: 0, readSeq: 0, activitySeq: 0, mentionCount: 0, lastMessageAt: null, isRough: true };
}

export function unreadIn({ lastSeq, readSeq }) {
  return Math.max(lastSeq - readSeq, 0);
}

export function mentionsIn(record) {
  return Math.min(record.mentionCount, unreadIn(record));
}

/** Process a room of the answer to the subscription. */
export function noteSubscribed(record, { seq, unreadCount, mentionCount, lastMessageAt }) {
  if (record.isRough) Object.assign(record, { lastSeq: seq, readSeq: seq - unreadCount, isRough: false });
  record.activitySeq = seq;
  noteMessage(record, seq, lastMessageAt ?? null);
  noteUnread(record, { unreadCount, mentionCount });
}

/** Process a room of `room:activity`. */
export function noteActivity(record, { latest, at }) {
  record.activitySeq = Math.max(record.activitySeq, latest);
  if (record.isRough) record.lastMessageAt = at;
  else noteMessage(record, latest, at);
}

/** Note the newest message. */
export function noteMessage(record, seq, at) {
  if (seq < record.lastSeq || (seq === record.lastSeq && record.lastMessageAt)) return;
  record.lastSeq = seq;
  record.lastMessageAt = at;
}

/** Process `room:unread`. The user may have read on here since the server counted. */
export function noteUnread(record, { unreadCount, mentionCount }) {
  if (record.activitySeq) {
    if (record.isRough) Object.assign(record, { lastSeq: record.activitySeq, readSeq: 0, isRough: false });
    noteRead(record, record.activitySeq - unreadCount);
    record.mentionCount = record.readSeq < record.activitySeq ? mentionCount : 0;
  } else {
    if (record.isRough) record.lastSeq = unreadCount;
    record.mentionCount = mentionCount;
  }
}

/** Move the read mark. Returns whether it has moved. */
export function noteRead(record, seq) {
  if (seq <= record.readSeq) return false;
  record.readSeq = seq;
  if (seq >= record.lastSeq) record.mentionCount = 0;
  return true;
}

/** Return a room from REST with its counts. Newer values of its record, from live events, are kept. */
export function withCounts(room, known) {
  const { activitySeq = 0, mentionCount = 0 } = known ?? {};
  const mark = known?.isMember && !known.isRough ? known.readSeq : 0;
  const lastSeq = Math.max(room.lastSeq, known?.isRough ? activitySeq : (known?.lastSeq ?? 0));
  const isNewer = known?.lastMessageAt && lastSeq > room.lastSeq;
  return {
    ...room,
    lastSeq,
    readSeq: Math.max(room.lastSeq - room.unreadCount, mark),
    lastMessageAt: isNewer ? known.lastMessageAt : room.lastMessageAt,
    activitySeq,
    mentionCount: room.isMember ? mentionCount : 0,
  };
}
