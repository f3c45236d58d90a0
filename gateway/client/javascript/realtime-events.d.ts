/** Data of every server frame. Generated from docs/asyncapi.json by `make docs`: do not edit. */

/** The socket is the user's now. The two intervals are in milliseconds. */
export interface AuthOk {
  userId: string;
  sessionId: string;
  serverTime: string;
  expiresAt: string;
  heartbeatInterval: number;
  connectionTimeout: number;
  maxMessageBytes: number;
}

/** The message is on disk. */
export interface ChatAck {
  chatroomId: string;
  messageId: string;
  seq: number;
  clientMessageId: string | null;
  timestamp: string;
}

/** A message. `seq` counts the messages of its room, without gaps. */
export interface ChatMessage {
  chatroomId: string;
  messageId: string;
  userId: string;
  message: string;
  timestamp: string;
  seq: number;
  clientMessageId: string | null;
  user: Profile;
}

/** A room is gone, and so is the subscription to it. */
export interface ChatroomDeleted {
  chatroomId: string;
}

/** `recovered` is False when more than 1,000 messages were missed: then none is replayed. */
export interface ChatroomSubscribed {
  channel: 'chatroom';
  chatroomId: string;
  seq: number;
  recovered: boolean;
  replayed: number;
  activeNow: number;
}

/** A room that the socket is subscribed to was changed. */
export interface ChatroomUpdated {
  chatroomId: string;
  name: string;
  description: string;
  type: 'public' | 'private' | 'group';
}

/** Its events follow as they come. */
export interface CommunitySubscribed {
  channel: 'community';
  communityId: string;
}

/** One wrong field and why, as `error.details` shows it. */
export interface Detail {
  field: string;
  reason: string;
}

/** The server is leaving: connect again after so many milliseconds, and resume. */
export interface Drain {
  reconnectAfterMs: number;
}

/** What went wrong with `request`. The socket stays open, unless a close code follows. */
export interface ServerError {
  code: 'BAD_FRAME' | 'UNKNOWN_TYPE' | 'VALIDATION' | 'UNAUTHORIZED' | 'TOKEN_EXPIRED' | 'FORBIDDEN' | 'NOT_FOUND' | 'RATE_LIMITED' | 'TOO_LARGE' | 'TOO_MANY_SUBSCRIPTIONS' | 'UNAVAILABLE' | 'INTERNAL';
  message: string;
  retryable: boolean;
  request?: string;
  retryAfterMs?: number;
  details?: Detail[];
}

/** Of each of `symbols` the latest price follows at once. */
export interface MarketSubscribed {
  channel: 'market';
  symbols: string[];
  unknown: string[];
}

/** A user has become a member of a room that the socket is subscribed to. */
export interface MemberJoined {
  chatroomId: string;
  userId: string;
  user: Profile;
  memberCount: number;
}

/** A user has left, or was removed from, a room that the socket is subscribed to. */
export interface MemberLeft {
  chatroomId: string;
  userId: string;
  memberCount: number;
}

/** A notification. `seq` counts the user's inbox; one that went to all has none. */
export interface Notification {
  id: string;
  createdAt: string;
  title: string;
  message: string;
  priority: 'low' | 'medium' | 'high' | 'urgent';
  seq?: number;
  [field: string]: unknown;
}

/** `seq` is the last of the inbox; `recovered` is False when what was missed is not replayed. */
export interface NotificationsSubscribed {
  channel: 'notifications';
  userId: string;
  seq: number;
  recovered: boolean;
  replayed: number;
}

/** The server lives. */
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

/** A member of a room that the socket is subscribed to came online, or went offline. */
export interface PresenceChange {
  userId: string;
  status: 'online' | 'offline';
  lastSeenAt?: string;
}

/** In the order asked. */
export interface PresenceState {
  users: Presence[];
}

/** Whether a user is online. `lastSeenAt`: when they last went offline; null for who never did. */
export interface Presence {
  userId: string;
  status: 'online' | 'offline';
  lastSeenAt: string | null;
}

/**
 * `change` and `changePercent` are against the close of the previous UTC day, or the first price seen.
 *
 * `volume` is that of the UTC day so far. `stale` is True once when the source has fallen silent, and False once when
 * the price moves again.
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

/** How far a user has read. */
export interface ReadMark {
  chatroomId: string;
  userId: string;
  seq: number;
}

/** A live session is over. */
export interface SessionEnded {
  sessionId?: string;
  endedAt?: string;
  [field: string]: unknown;
}

/** A live session has begun. */
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

/** Who types, or no longer does. */
export interface Typing {
  chatroomId: string;
  userId: string;
  isTyping: boolean;
}

/** Nothing more comes from what these name. */
export interface Unsubscribed {
  channel: 'chatroom' | 'notifications' | 'market' | 'community';
  chatroomId?: string;
  userId?: string;
  symbols?: string[];
  communityId?: string;
}

/** How a person is shown beside a message; from the token's claims or the last `user.updated`. */
export interface Profile {
  firstName: string;
  lastName: string;
  avatar: string | null;
}

/** Data by frame type. */
export interface ServerEvents {
  'auth:ok': AuthOk;
  'subscribed': ChatroomSubscribed | NotificationsSubscribed | MarketSubscribed | CommunitySubscribed;
  'unsubscribed': Unsubscribed;
  'pong': Pong;
  'error': ServerError;
  'chat:ack': ChatAck;
  'chat:message': ChatMessage;
  'chat:typing': Typing;
  'chat:read': ReadMark;
  'presence:state': PresenceState;
  'user:online': PresenceChange;
  'user:offline': PresenceChange;
  'member:joined': MemberJoined;
  'member:left': MemberLeft;
  'chatroom:updated': ChatroomUpdated;
  'chatroom:deleted': ChatroomDeleted;
  'market:price': Price;
  'notification:new': Notification;
  'post:created': PostCreated;
  'trade:created': TradeCreated;
  'session:started': SessionStarted;
  'session:ended': SessionEnded;
  'server:drain': Drain;
}
