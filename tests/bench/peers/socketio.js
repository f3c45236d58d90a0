// Socket.IO: an event `pub` goes to everyone as `m`.
const { Server } = require("socket.io");
const http = require("http").createServer();
const io = new Server(http, { transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.join("room");
  socket.on("pub", (message) => socket.to("room").emit("m", message));
});
http.listen(Number(process.argv[2]), "127.0.0.1", 4096, () => console.log("listening"));
