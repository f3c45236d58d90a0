// uWebSockets.js: what comes on /pub goes to everyone on /sub.
const uws = require("uwebsockets");
const port = Number(process.argv[2]);
const app = uws.App();
app.ws("/sub", { idleTimeout: 0, maxBackpressure: 64 * 1024 * 1024, open: (ws) => ws.subscribe("room") });
app.ws("/pub", { idleTimeout: 0, message: (_ws, message, binary) => app.publish("room", message, binary) });
app.listen("127.0.0.1", port, (token) => console.log(token ? "listening" : "failed"));
