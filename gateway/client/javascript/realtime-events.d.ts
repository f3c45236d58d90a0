/** Data of every server frame. Generated from docs/asyncapi.json by `make docs`: do not edit. */

/** A room with new messages: `latest` is the seq of the newest, `at` its time. */
export interface ActiveRoom {
  chatroomId: string;
  at: string;
  latest: number;
}

/** A room of the caller: its last message, the messages after the read mark, and those that mention the caller. */
export interface ActivityRoom {
  chatroomId: string;
  seq: number;
  unreadCount: number;
  mentionCount: number;
  lastMessageAt?: string;
}

/** The 200 rooms with the most recent messages, and the totals over all rooms of the caller. */
export interface ActivitySubscribed {
  channel: 'activity';
  rooms: ActivityRoom[];
  unreadTotal: number;
  mentionTotal: number;
}

/** A picture, file, link or chart under its URL. The size in pixels or bytes is as the sender stated it. */
export interface Attachment {
  kind: 'chart' | 'file' | 'image' | 'link';
  url: string;
  name?: string;
  contentType?: string;
  sizeBytes?: number;
  width?: number;
  height?: number;
}

/** The socket is authenticated. The two intervals are in milliseconds. */
export interface AuthOk {
  userId: string;
  sessionId: string;
  serverTime: string;
  expiresAt: string;
  heartbeatInterval: number;
  connectionTimeout: number;
  maxMessageBytes: number;
}

/** The change of the message is on disk. */
export interface ChangeAck {
  chatroomId: string;
  messageId: string;
  rev: number;
}

/** The message is on disk. */
export interface ChatAck {
  chatroomId: string;
  messageId: string;
  seq: number;
  rev: number;
  clientMessageId: string | null;
  timestamp: string;
}

/** A message was deleted; a tombstone stays in its place. */
export interface ChatDeleted {
  chatroomId: string;
  rev: number;
  messageId: string;
  deletedBy: string;
  deletedAt: string;
}

/**
 * A message. `seq` counts the messages of its room, without gaps; `rev` is that of the entry that stored it.
 *
 * Empty optional fields are omitted. A deleted message (a tombstone) has an empty text and `deletedAt`.
 */
export interface ChatMessage {
  chatroomId: string;
  messageId: string;
  userId: string;
  message: string;
  timestamp: string;
  seq: number;
  rev: number;
  clientMessageId: string | null;
  user: Profile;
  replyTo?: ReplyPreview;
  mentions?: string[];
  mentionRoom?: boolean;
  attachments?: Attachment[];
  symbols?: string[];
  reactions?: ReactionCount[];
  editedAt?: string;
  deletedAt?: string;
  deletedBy?: string;
}

/** A message was pinned, or unpinned. */
export interface ChatPinned {
  chatroomId: string;
  rev: number;
  messageId: string;
  pinned: boolean;
  userId: string;
}

/** Users reacted to a message, or removed their reactions. `changes` is absent if there are more than 100. */
export interface ChatReaction {
  chatroomId: string;
  rev: number;
  messageId: string;
  reactions: ReactionCount[];
  changes?: ReactionChange[];
}

/** A message was edited. A replay shows the current text. */
export interface ChatUpdated {
  chatroomId: string;
  rev: number;
  messageId: string;
  userId: string;
  message: string;
  editedAt: string;
  mentions?: string[];
}

/** A room was deleted, and with it the subscription: `unsubscribed` follows. */
export interface ChatroomDeleted {
  chatroomId: string;
}

/**
 * `recovered` is true if all missed messages (`since`) or entries (`sinceRev`) are replayed; otherwise none are.
 *
 * It is false if neither `since` nor `sinceRev` was given, if the given one is beyond the room's head, if the missed
 * items that clients would see are more than 1,000 or exceed 8 MB, or if more than 4,000 entries were missed. `seq` is
 * the room's last message and `rev` the last entry of its log.
 */
export interface ChatroomSubscribed {
  channel: 'chatroom';
  chatroomId: string;
  seq: number;
  rev: number;
  recovered: boolean;
  replayed: number;
  activeNow: number;
}

/** A room that the socket is subscribed to changed. */
export interface ChatroomUpdated {
  chatroomId: string;
  name: string;
  description: string;
  type: 'public' | 'private' | 'group';
}

/** The community's events follow as they happen. */
export interface CommunitySubscribed {
  channel: 'community';
  communityId: string;
}

/** One wrong field and the reason, as `error.details` shows it. */
export interface Detail {
  field: string;
  reason: string;
}

/** The server is stopping: reconnect after this many milliseconds, and resume. */
export interface Drain {
  reconnectAfterMs: number;
}

/** The failure of `request`. The socket stays open, unless a close code follows. */
export interface ServerError {
  code: 'BAD_FRAME' | 'UNKNOWN_TYPE' | 'VALIDATION' | 'UNAUTHORIZED' | 'TOKEN_EXPIRED' | 'FORBIDDEN' | 'NOT_FOUND' | 'CONFLICT' | 'EDIT_WINDOW' | 'RATE_LIMITED' | 'TOO_LARGE' | 'TOO_MANY_SUBSCRIPTIONS' | 'UNAVAILABLE' | 'INTERNAL';
  message: string;
  retryable: boolean;
  request?: string;
  retryAfterMs?: number;
  details?: Detail[];
}

/** The latest price of each of `symbols` follows at once. */
export interface MarketSubscribed {
  channel: 'market';
  symbols: string[];
  unknown: string[];
}

/** `by` made the user of this socket a member of a room. */
export interface MemberInvited {
  chatroomId: string;
  name: string;
  type: 'public' | 'private' | 'group';
  by: string;
}

/** A user became a member of a room that the socket is subscribed to. */
export interface MemberJoined {
  chatroomId: string;
  userId: string;
  user: Profile;
  memberCount: number;
}

/** A user left, or was removed from, a room that the socket is subscribed to. */
export interface MemberLeft {
  chatroomId: string;
  userId: string;
  memberCount: number;
}

/** A notification. `seq` counts the user's inbox; a notification to everybody has none. */
export interface Notification {
  id: string;
  createdAt: string;
  title: string;
  message: string;
  priority: 'low' | 'medium' | 'high' | 'urgent';
  seq?: number;
  [field: string]: unknown;
}

/** `seq` is the last seq of the inbox. `recovered` is false if the missed entries are not replayed. */
export interface NotificationsSubscribed {
  channel: 'notifications';
  userId: string;
  seq: number;
  recovered: boolean;
  replayed: number;
}

/** The answer to a ping. */
export interface Pong {
  serverTime: string;
}

/** A post in a community that the socket is subscribed to. */
export interface PostCreated {
  postId?: string;
  userId?: string;
  communityId?: string;
  content?: string;
  [field: string]: unknown;
}

/** A member of a subscribed room, or the partner in a direct room, came online or went offline. */
export interface PresenceChange {
  userId: string;
  status: 'online' | 'offline';
  lastSeenAt?: string;
}

/** The presence of users, in the order of the request. */
export interface PresenceState {
  users: Presence[];
}

/** A user's presence. `lastSeenAt` is when they last went offline; null if they never did. */
export interface Presence {
  userId: string;
  status: 'online' | 'offline';
  lastSeenAt: string | null;
}

/**
 * `change` and `changePercent` compare with the close of the previous UTC day, or the first price seen.
 *
 * `volume` is that of the UTC day so far. `stale` is true while the price is stale, false once when the price moves
 * again, and absent otherwise.
 */
export interface Price {
  symbol: string;
  price: number;
  change: number;
  changePercent: number;
  timestamp: string;
  seq: number;
  bid?: number;
  ask?: number;
  volume?: number;
  stale?: boolean;
}

/** A user added or removed a reaction. */
export interface ReactionChange {
  userId: string;
  emoji: string;
  added: boolean;
}

/** The number of users who reacted with an emoji. `mine`: the caller is one of them; only in REST. */
export interface ReactionCount {
  emoji: string;
  count: number;
  mine?: boolean;
}

/** A user's read mark in a room. */
export interface ReadMark {
  chatroomId: string;
  userId: string;
  seq: number;
}

/** The message that a reply answers: the first 200 characters of its current text; empty if it is deleted. */
export interface ReplyPreview {
  messageId: string;
  userId: string;
  message: string;
}

/** Rooms of the caller with new messages, at most once a second. */
export interface RoomActivity {
  rooms: ActiveRoom[];
}

/** The number of members online in a large room, sent at most every 5 s, instead of each member's changes. */
export interface RoomPresence {
  chatroomId: string;
  activeNow: number;
}

/** The messages of a room after the caller's read mark, and those among them that mention the caller or everyone. */
export interface RoomUnread {
  chatroomId: string;
  unreadCount: number;
  mentionCount: number;
}

/** A live session ended. */
export interface SessionEnded {
  sessionId?: string;
  endedAt?: string;
  [field: string]: unknown;
}

/** A live session began. */
export interface SessionStarted {
  sessionId?: string;
  title?: string;
  speakerId?: string;
  startedAt?: string;
  [field: string]: unknown;
}

/** A trade. */
export interface TradeCreated {
  tradeId?: string;
  symbol?: string;
  direction?: 'buy' | 'sell';
  entryPrice?: number;
  [field: string]: unknown;
}

/** A user started or stopped typing. */
export interface Typing {
  chatroomId: string;
  userId: string;
  isTyping: boolean;
}

/**
 * The subscription to this target has ended.
 *
 * `reason` states why the server ended the subscription of a room. Every socket of a user who is removed from a room
 * receives it, subscribed or not. An unsubscription that the client requested has none.
 */
export interface Unsubscribed {
  channel: 'chatroom' | 'notifications' | 'market' | 'community' | 'activity';
  chatroomId?: string;
  userId?: string;
  symbols?: string[];
  communityId?: string;
  reason?: 'removed' | 'banned' | 'deleted';
}

/**
 * The profile shown with a message.
 *
 * The name and picture in the token's claims. A field that a `user.updated` event has set replaces the claim. But if
 * the token has any of these claims and was issued after the last such event, only its claims are shown.
 */
export interface Profile {
  firstName: string;
  lastName: string;
  avatar: string | null;
}

/** Data by frame type. */
export interface ServerEvents {
  'auth:ok': AuthOk;
  'subscribed': ChatroomSubscribed | NotificationsSubscribed | MarketSubscribed | CommunitySubscribed | ActivitySubscribed;
  'unsubscribed': Unsubscribed;
  'pong': Pong;
  'error': ServerError;
  'chat:ack': ChatAck | ChangeAck;
  'chat:message': ChatMessage;
  'chat:updated': ChatUpdated;
  'chat:deleted': ChatDeleted;
  'chat:reaction': ChatReaction;
  'chat:pinned': ChatPinned;
  'chat:typing': Typing;
  'chat:read': ReadMark;
  'presence:state': PresenceState;
  'user:online': PresenceChange;
  'user:offline': PresenceChange;
  'room:presence': RoomPresence;
  'member:joined': MemberJoined;
  'member:left': MemberLeft;
  'member:invited': MemberInvited;
  'chatroom:updated': ChatroomUpdated;
  'chatroom:deleted': ChatroomDeleted;
  'room:activity': RoomActivity;
  'room:unread': RoomUnread;
  'market:price': Price;
  'notification:new': Notification;
  'post:created': PostCreated;
  'trade:created': TradeCreated;
  'session:started': SessionStarted;
  'session:ended': SessionEnded;
  'server:drain': Drain;
}
