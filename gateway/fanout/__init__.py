"""Fan-out: from delivery lines on the broker to the bytes that each socket receives.

Read in this order:

- `wire`, `batch`, `frame_peek`: WebSocket frames, frames joined into one write, fields read from a frame;
- `resequencer`, `lane`, `flush_schedule`, `prices`: order, sockets that receive the same bytes, write schedule, prices;
- `subscriber`, `stream`, `channel`: the states of a subscriber (with a diagram), and one channel;
- `registry`, `direct_messages`, `hub`: all channels of the process;
- `flusher`, `bindings`, `membership`: flush timer, bindings to shards, joining and leaving;
- `stall`, `retries`, `price_snapshot`, `gap_filler`, `recovery`: repairs after lost lines, and after a frozen process;
- `typing_expiry`, `controls`, `relay`, `fan_out`: overdue typing marks, deliveries for the gateway itself, dispatch of
  delivery lines, composition of the parts;
- `activity_rooms`, `activity_registry`, `activity_lines`, `activity`, `activity_feed`: all rooms of a user at
  once;
- `replays`: history that resuming clients missed.

The modules up to `hub` are pure: the clock is an argument.
"""
