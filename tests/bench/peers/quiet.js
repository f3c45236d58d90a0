// The chat server that a user would write instead: ws, a JWT checked at connect, the official MongoDB driver with one
// insertOne per message (majority and journal), and a broadcast in the process. It speaks the same frames as the
// gateway for chat:send. One process, no broker, no history index, no membership, no deduplication, no rate limit.
// Usage: node quiet.js <port> <MongoDB URI> <database> <JWT secret>
const { WebSocketServer } = require("ws");
const jwt = require("jsonwebtoken");
const { MongoClient } = require("mongodb");

const [port, uri, database, secret] = process.argv.slice(2);
const client = new MongoClient(uri, { writeConcern: { w: "majority", journal: true } });
const messages = client.db(database).collection("messages");
const rooms = new Map(); // room id → { seq, sockets }

function roomOf(id) {
  let room = rooms.get(id);
  if (!room) rooms.set(id, (room = { seq: 0, sockets: new Set() }));
  return room;
}

function userOf(url) {
  try {
    return jwt.verify(url.searchParams.get("token"), secret, { algorithms: ["HS256"] }).sub;
  } catch {
    return null;
  }
}

async function send(socket, userId, frame) {
  const { id, chatroomId, message } = frame;
  const room = roomOf(chatroomId);
  const seq = ++room.seq;
  const createdAt = new Date();
  const { insertedId } = await messages.insertOne({ roomId: chatroomId, seq, userId, text: message, createdAt });
  const data = { chatroomId, seq, messageId: insertedId, createdAt };
  socket.send(JSON.stringify({ type: "chat:ack", id, data }));
  const text = JSON.stringify({ type: "chat:message", data: { ...data, userId, message } });
  for (const listener of room.sockets) listener.send(text);
}

function connected(socket, request) {
  const url = new URL(request.url, "http://localhost");
  const userId = userOf(url);
  if (userId === null) return socket.close(4001, "invalid token");
  const mine = url.searchParams.getAll("room").map(roomOf);
  for (const room of mine) room.sockets.add(socket);
  socket.on("close", () => mine.forEach((room) => room.sockets.delete(socket)));
  socket.on("error", () => {});
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    if (frame.type === "ping") return socket.send('{"type":"pong"}');
    const failed = (error) => socket.send(JSON.stringify({ type: "error", id: frame.id, message: error.message }));
    send(socket, userId, frame).catch(failed);
  });
  socket.send('{"type":"auth:ok"}');
}

client.connect().then(() => {
  const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), backlog: 4096 });
  server.on("connection", connected);
});
