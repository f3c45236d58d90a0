// Our client, used as the published usage has it, to the letter: nothing waits for the connection, no promise is looked
// at. Prints what its handlers get, and ends when it has had one of each kind.

import { RealtimeClient } from '../../gateway/client/javascript/realtime.js';

const { GATEWAY_WS_URL, TOKEN, USER_ID, ROOM_ID } = process.env;
const awaited = new Set(['chat:message', 'market:price', 'notification:new']);

const client = new RealtimeClient('no key is needed', TOKEN, { url: GATEWAY_WS_URL });
client.connect();

for (const type of ['auth:ok', 'subscribed', 'error', ...awaited]) {
  client.on(type, (data) => {
    console.log(JSON.stringify({ type, data }));
    awaited.delete(type);
    if (awaited.size === 0) {
      client.close();
    }
  });
}

client.subscribe('chatroom', { chatroomId: ROOM_ID });
client.subscribe('market', { symbols: ['EUR/USD', 'GBP/JPY'] });
client.subscribe('notifications', { userId: USER_ID });
client.sendMessage(ROOM_ID, 'Hello everyone!');
