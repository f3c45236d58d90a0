/** REST client for one user. Methods return the `data` of the envelope, with `pagination` where stated. */

/** Error from the server, or a failure to reach it (`status` 0). */
export class ApiError extends Error {
  constructor(status, code, message, retryAfterMs = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

const TIMEOUT_MS = 15_000;

async function request(method, path, { token = null, body } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response, answer;
  try {
    const content = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, headers, body: content, signal: AbortSignal.timeout(TIMEOUT_MS) });
    answer = await response.json();
  } catch {
    throw new ApiError(0, 'UNREACHABLE', 'The server is unreachable.');
  }
  if (answer.success) return answer;
  const { code, message, retryAfterMs = null } = answer.error;
  const pause = code === 'RATE_LIMITED' && retryAfterMs ? ` Try again in ${duration(retryAfterMs)}.` : '';
  throw new ApiError(response.status, code, sentence(message) + pause, retryAfterMs);
}

function duration(ms) {
  return ms > 90_000 ? `${Math.ceil(ms / 60_000)} minutes` : `${Math.ceil(ms / 1000)} seconds`;
}

/** Return an error text as a sentence. */
export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.') : 'Something went wrong.';
}

/** Request a development token for a name: `{token, userId, firstName, lastName, expiresAt}`. */
export async function newToken(name) {
  return (await request('POST', '/dev/token', { body: { name } })).data;
}

const part = encodeURIComponent;

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
}

export class Api {
  /** `token()` returns the current token. */
  constructor(token) {
    this.token = token;
  }

  async #page(method, path, body) {
    return request(method, path, { token: this.token(), body });
  }

  async #data(method, path, body) {
    return (await this.#page(method, path, body)).data;
  }

  /** `{data, pagination}` */
  rooms = (parameters) => this.#page('GET', `/v1/chatrooms${query(parameters)}`);
  room = (id) => this.#data('GET', `/v1/chatrooms/${part(id)}`);
  /** `{unreadTotal, mentionTotal, rooms}` */
  unread = () => this.#data('GET', '/v1/chatrooms/unread');
  createRoom = (room) => this.#data('POST', '/v1/chatrooms', room);
  deleteRoom = (id) => this.#data('DELETE', `/v1/chatrooms/${part(id)}`);
  join = (id) => this.#data('POST', `/v1/chatrooms/${part(id)}/join`);
  leave = (id) => this.#data('POST', `/v1/chatrooms/${part(id)}/leave`);
  messages = (id, parameters) => this.#data('GET', `/v1/chatrooms/${part(id)}/messages${query(parameters)}`);
  message = (id, messageId) => this.#data('GET', `/v1/chatrooms/${part(id)}/messages/${part(messageId)}`);
  /** `{data, pagination}` */
  reactions = (id, messageId, parameters) =>
    this.#page('GET', `/v1/chatrooms/${part(id)}/messages/${part(messageId)}/reactions${query(parameters)}`);
  /** `{data, pagination: {next?}}`: `next` is the `before` that finds older messages. */
  search = (id, parameters) => this.#page('GET', `/v1/chatrooms/${part(id)}/messages/search${query(parameters)}`);
  pins = (id, parameters) => this.#data('GET', `/v1/chatrooms/${part(id)}/pins${query(parameters)}`);
  pin = (id, messageId) => this.#data('PUT', `/v1/chatrooms/${part(id)}/pins/${part(messageId)}`);
  unpin = (id, messageId) => this.#data('DELETE', `/v1/chatrooms/${part(id)}/pins/${part(messageId)}`);
  /** `{data, pagination}` */
  members = (id, parameters) => this.#page('GET', `/v1/chatrooms/${part(id)}/members${query(parameters)}`);
  invite = (id, userId) => this.#data('PUT', `/v1/chatrooms/${part(id)}/members/${part(userId)}`);
  setRole = (id, userId, role) => this.#data('PUT', `/v1/chatrooms/${part(id)}/members/${part(userId)}`, { role });
  remove = (id, userId) => this.#data('DELETE', `/v1/chatrooms/${part(id)}/members/${part(userId)}`);
  direct = (userId, message, clientMessageId) =>
    this.#data('POST', '/v1/messages/direct', { userId, message, clientMessageId });
  presence = (ids) => this.#data('GET', `/v1/presence${query({ ids: ids.map(part).join(',') })}`);

  symbols = () => this.#data('GET', '/v1/market/symbols');
  prices = () => this.#data('GET', '/v1/market/prices');
  candles = (symbol, interval, limit) => this.#data('GET', `/v1/market/candles${query({ symbol, interval, limit })}`);

  /** `{data, pagination}` */
  notifications = (parameters) => this.#page('GET', `/v1/notifications${query(parameters)}`);
  unreadCount = async () => (await this.#data('GET', '/v1/notifications/unread-count')).unreadCount;
  readNotification = (id) => this.#data('POST', `/v1/notifications/${part(id)}/read`);
  readAll = () => this.#data('POST', '/v1/notifications/read-all');

  alerts = () => this.#data('GET', '/v1/alerts');
  createAlert = (alert) => this.#data('POST', '/v1/alerts', alert);
  deleteAlert = (id) => this.#data('DELETE', `/v1/alerts/${part(id)}`);
}
