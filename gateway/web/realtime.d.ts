/** Types of realtime.js; what each thing does is said at the top of that file. */

export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed';
export type TokenReason = 'connect' | 'expiring' | 'refused';
export type TokenSource = string | ((reason: TokenReason) => string | Promise<string>);

export interface Options {
  /** ws(s)://host/v1/live or http(s)://host. Default: the page's own host. */
  url?: string | URL;
  /** The WebSocket class to use. Default: the global one. */
  WebSocket?: new (url: string) => WebSocket;
  backoffFirstMs?: number;
  backoffMaxMs?: number;
  connectTimeoutMs?: number;
  answerTimeoutMs?: number;
  /** 0: as the server says. */
  heartbeatMs?: number;
  /** Messages and other requests; subscriptions wait for ever. 0: never. */
  requestTimeoutMs?: number;
  pendingMax?: number;
}

export type ErrorCode =
  | 'BAD_FRAME' | 'UNKNOWN_TYPE' | 'VALIDATION' | 'UNAUTHORIZED' | 'TOKEN_EXPIRED' | 'FORBIDDEN' | 'NOT_FOUND'
  | 'RATE_LIMITED' | 'TOO_LARGE' | 'TOO_MANY_SUBSCRIPTIONS' | 'UNAVAILABLE' | 'INTERNAL'
  | 'CLOSED' | 'TIMEOUT' | 'QUEUE_FULL' | 'UNSUBSCRIBED';

export interface Detail { field: string; reason: string }

export class RealtimeError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly retryAfterMs?: number;
  readonly request?: string;
  readonly details?: Detail[];
  /** With CLOSED: the close code. */
  readonly closeCode?: number;
}

export interface Profile { firstName: string; lastName: string; avatar: string | null }

export interface ChatMessage {
  chatroomId: string; messageId: string; userId: string; message: string; timestamp: string; seq: number;
  clientMessageId: string | null; user: Profile;
}
export interface ChatAck {
  chatroomId: string; messageId: string; seq: number; clientMessageId: string | null; timestamp: string;
}
export interface Presence { userId: string; status: 'online' | 'offline'; lastSeenAt?: string | null }
export interface ReadMark { chatroomId: string; userId: string; seq: number }
export interface Typing { chatroomId: string; userId: string; isTyping: boolean }
export interface Price {
  symbol: string; price: number; change: number; changePercent: number; timestamp: string; seq: number;
  bid?: number; ask?: number; volume?: number; stale?: boolean;
}
export interface Notification {
  id: string; title: string; message: string; priority: 'low' | 'medium' | 'high' | 'urgent'; createdAt: string;
  /** Its place in the inbox; not there in what goes to everybody. */
  seq?: number;
  [field: string]: unknown;
}
export interface ServerError {
  code: ErrorCode; message: string; retryable: boolean; request?: string; retryAfterMs?: number; details?: Detail[];
}
export interface AuthOk {
  userId: string; sessionId: string; serverTime: string; expiresAt: string; heartbeatInterval: number;
  connectionTimeout: number; maxMessageBytes: number;
}

/** The `since` of a room or the inbox: what came after that seq is replayed. */
export interface ChatroomOptions { chatroomId: string; since?: number }
export interface NotificationsOptions { userId?: string; since?: number }
/** `maxRate`: prices a second and symbol, 1 to 50; 10 if not given. */
export interface MarketOptions { symbols: string[]; maxRate?: number }
export interface CommunityOptions { communityId: string }

export interface ChannelOptions {
  chatroom: ChatroomOptions; notifications: NotificationsOptions; market: MarketOptions; community: CommunityOptions;
}
export type Channel = keyof ChannelOptions;

export interface ChatroomSubscribed {
  channel: 'chatroom'; chatroomId: string; seq: number; recovered: boolean; replayed: number; activeNow: number;
}
export interface NotificationsSubscribed {
  channel: 'notifications'; userId: string; seq: number; recovered: boolean; replayed: number;
}
export interface MarketSubscribed { channel: 'market'; symbols: string[]; unknown: string[] }
export interface CommunitySubscribed { channel: 'community'; communityId: string }
export interface Subscribed {
  chatroom: ChatroomSubscribed; notifications: NotificationsSubscribed; market: MarketSubscribed;
  community: CommunitySubscribed;
}

export interface StateChange {
  state: State; previous: State;
  /** The close code; null if the client itself gave the link up. */
  code?: number | null;
  reason?: string;
  /** With 'waiting'. */
  retryInMs?: number;
  /** With 'open': whether there was a connection before. */
  resumed?: boolean;
}
/** Between `since` and `seq` something came that cannot be replayed. */
export interface Missed { channel: 'chatroom' | 'notifications'; chatroomId?: string; since: number; seq: number }
export interface SubscriptionLost {
  channel: Channel; code: ErrorCode; message: string;
  chatroomId?: string; userId?: string; symbols?: string[]; communityId?: string;
}

export interface Events {
  'state': StateChange;
  'missed': Missed;
  'subscription:lost': SubscriptionLost;
  'auth:ok': AuthOk;
  'subscribed': Subscribed[Channel];
  'chat:message': ChatMessage;
  'chat:ack': ChatAck;
  'chat:typing': Typing;
  'chat:read': ReadMark;
  'user:online': Presence;
  'user:offline': Presence;
  'presence:state': { users: Presence[] };
  'chatroom:deleted': { chatroomId: string };
  'market:price': Price;
  'notification:new': Notification;
  'pong': { serverTime: string };
  'server:drain': { reconnectAfterMs: number };
  'error': ServerError;
}

export interface Stats {
  framesIn: number; framesOut: number; repeats: number; reconnects: number; latencyMs: number | null;
}

export interface SendOptions {
  /** Random if not given. The same one again gives the same message. */
  clientMessageId?: string;
}

export class RealtimeClient {
  constructor(apiKey: unknown, token: TokenSource, options?: Options);

  readonly apiKey: unknown;
  readonly url: string;
  readonly state: State;
  readonly stats: Stats;
  readonly ws: WebSocket | null;

  connect(): Promise<void>;
  close(): void;
  setToken(token: string): void;
  wake(): void;

  on<T extends keyof Events>(type: T, handler: (data: Events[T]) => void): () => void;
  on(type: '*', handler: (type: string, data: unknown) => void): () => void;
  on(type: string, handler: (data: any) => void): () => void;
  off(type: string, handler?: (...args: any[]) => void): void;

  subscribe<C extends Channel>(channel: C, options?: ChannelOptions[C]): Promise<Subscribed[C]>;
  unsubscribe<C extends Channel>(channel: C, options?: ChannelOptions[C]): Promise<unknown>;
  sendMessage(chatroomId: string, message: string, options?: SendOptions): Promise<ChatAck>;
  sendDirect(userId: string, message: string, options?: SendOptions): Promise<ChatAck>;
  markRead(chatroomId: string, seq: number): Promise<ReadMark>;
  getPresence(userIds: string[]): Promise<Presence[]>;
  typing(chatroomId: string, isTyping?: boolean): boolean;
}
