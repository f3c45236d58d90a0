// ws: what comes on /pub goes to everyone on /sub.
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
const listeners = new Set();
server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  if (request.url === "/pub") {
    socket.on("message", (data) => {
      for (const listener of listeners) listener.send(data, { binary: false });
    });
    return;
  }
  listeners.add(socket);
  socket.on("close", () => listeners.delete(socket));
});
server.on("listening", () => console.log("listening"));
