// The published client under Node: `node --experimental-websocket published_client.mjs`, told by the environment.
// Prints what its handlers get, one JSON line each, and ends when it has had one of each kind.

// The class asks for ws://api.yourdomain.com/v1/live: only this address is exchanged.
const PUBLISHED_URL = 'ws://api.yourdomain.com/v1/live';
const Native = globalThis.WebSocket;
globalThis.WebSocket = class extends Native {
  constructor(url) {
    if (url !== PUBLISHED_URL) {
      throw new Error(`the published client connects to ${url}`);
    }
    super(process.env.GATEWAY_WS_URL);
  }
};

// Verbatim from here
class RealtimeClient {
  constructor(apiKey, token) {
    this.apiKey = apiKey;
    this.token = token;
    this.ws = null;
    this.handlers = {};
  }

  connect() {
    this.ws = new WebSocket('ws://api.yourdomain.com/v1/live');

    this.ws.onopen = () => {
      console.log('**Connected');
      
      // Authenticate
      this.ws.send(JSON.stringify({
        type: 'auth',
        token: this.token
      }));
    };

    this.ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      
      // Route to handler
      const handler = this.handlers[message.type];
      if (handler) {
        handler(message.data);
      }
    };

    this.ws.onclose = () => {
      console.log('Connection closed, reconnecting...');
      setTimeout(() => this.connect(), 5000);
    };

    this.ws.onerror = (error) => {
      console.error('WebSocket error:', error);
    };
  }

  on(eventType, handler) {
    this.handlers[eventType] = handler;
  }

  subscribe(channel, options = {}) {
    this.ws.send(JSON.stringify({
      type: 'subscribe',
      channel,
      ...options
    }));
  }

  sendMessage(chatroomId, message) {
    this.ws.send(JSON.stringify({
      type: 'chat:send',
      chatroomId,
      message
    }));
  }
}
// to here

const { TOKEN, USER_ID, ROOM_ID } = process.env;
const awaited = new Set(['chat:message', 'market:price', 'notification:new']);

const client = new RealtimeClient('no key is needed', TOKEN);
client.connect();

for (const type of ['auth:ok', 'subscribed', 'error', ...awaited]) {
  client.on(type, (data) => {
    process.stdout.write(`${JSON.stringify({ type, data })}\n`, () => {
      awaited.delete(type);
      if (awaited.size === 0) {
        process.exit(0);
      }
    });
  });
}

// As the published usage does, but once the socket is open.
client.ws.addEventListener('open', () => {
  client.subscribe('chatroom', { chatroomId: ROOM_ID });
  client.subscribe('market', { symbols: ['EUR/USD', 'GBP/JPY'] });
  client.subscribe('notifications', { userId: USER_ID });
  client.sendMessage(ROOM_ID, 'Hello everyone!');
});
