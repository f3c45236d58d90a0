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
