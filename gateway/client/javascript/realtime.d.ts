/** Types of realtime.js, whose head describes every method. The data of server frames is in realtime-events.d.ts. */

import type {
  ActivitySubscribed, Attachment, ChangeAck, ChatAck, ChatroomSubscribed, CommunitySubscribed, Detail, MarketSubscribed, NotificationsSubscribed, Presence,
  ReadMark, ServerError, ServerEvents,
} from './realtime-events.js';

export type * from './realtime-events.js';

export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed';
export type TokenReason = 'connect' | 'expiring' | 'refused';
export type TokenSource = string | ((reason: TokenReason) => string | Promise<string>);

export interface Options {
  /** ws(s)://host/v1/live or http(s)://host. Default: the host of the page. */
  url?: string | URL;
  /** WebSocket class to use. Default: the global one. */
  WebSocket?: new (url: string) => WebSocket;
  backoffFirstMs?: number;
  backoffMaxMs?: number;
  connectTimeoutMs?: number;
  answerTimeoutMs?: number;
  /** Interval of pings. 0 takes the interval that the server announces. */
  heartbeatMs?: number;
  /** Deadline of messages and other requests; subscriptions have none. 0 disables it. */
  requestTimeoutMs?: number;
  pendingMax?: number;
}

/** Codes of the server, and the client's own: CLOSED, TIMEOUT, QUEUE_FULL, UNSUBSCRIBED. */
export type ErrorCode = ServerError['code'] | 'CLOSED' | 'TIMEOUT' | 'QUEUE_FULL' | 'UNSUBSCRIBED';

export class RealtimeError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly retryAfterMs?: number;
  readonly request?: string;
  readonly details?: Detail[];
  /** Close code of the socket, with CLOSED. */
  readonly closeCode?: number;
}

/** The messages after `since`, or all that happened after `sinceRev`, are replayed. Give one of them. */
export interface ChatroomOptions { chatroomId: string; since?: number; sinceRev?: number }
export interface NotificationsOptions { userId?: string; since?: number }
/** `maxRate` limits prices per second and symbol, 1 to 50. Default: 10. */
export interface MarketOptions { symbols: string[]; maxRate?: number }
export interface CommunityOptions { communityId: string }

export interface ChannelOptions {
  chatroom: ChatroomOptions; notifications: NotificationsOptions; market: MarketOptions; community: CommunityOptions;
  activity: Record<string, never>;
}
export type Channel = keyof ChannelOptions;

export interface Subscribed {
  chatroom: ChatroomSubscribed; notifications: NotificationsSubscribed; market: MarketSubscribed;
  community: CommunitySubscribed; activity: ActivitySubscribed;
}

export interface StateChange {
  state: State; previous: State;
  /** Close code; null if the client gave up the connection. */
  code?: number | null;
  reason?: string;
  /** With 'waiting'. */
  retryInMs?: number;
  /** With 'open': whether an earlier connection was resumed. */
  resumed?: boolean;
}
/** Events between `since` and `seq` cannot be replayed: load them over REST. */
export interface Missed { channel: 'chatroom' | 'notifications'; chatroomId?: string; since: number; seq: number }
export interface SubscriptionLost {
  channel: Channel; code: ErrorCode; message: string;
  chatroomId?: string; userId?: string; symbols?: string[]; communityId?: string;
}

export interface Events extends ServerEvents {
  'state': StateChange;
  'missed': Missed;
  'subscription:lost': SubscriptionLost;
}

export interface Stats {
  framesIn: number; framesOut: number; repeats: number; reconnects: number; latencyMs: number | null;
}

export interface SendOptions {
  /** Default: random. Sending the same id again returns the same message. */
  clientMessageId?: string;
  /** Id of the message that this one answers. */
  replyTo?: string;
  mentions?: string[];
  mentionRoom?: boolean;
  attachments?: Attachment[];
  symbols?: string[];
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
  /** Without `mentions`, those of the message are kept. */
  editMessage(
    chatroomId: string, messageId: string, message: string, options?: { mentions?: string[] },
  ): Promise<ChangeAck>;
  deleteMessage(chatroomId: string, messageId: string): Promise<ChangeAck>;
  react(chatroomId: string, messageId: string, emoji: string, options?: { remove?: boolean }): Promise<ChangeAck>;
  markRead(chatroomId: string, seq: number): Promise<ReadMark>;
  getPresence(userIds: string[]): Promise<Presence[]>;
  typing(chatroomId: string, isTyping?: boolean): boolean;
}
