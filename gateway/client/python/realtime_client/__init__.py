"""Asyncio client for the realtime API: chat rooms, prices, notifications and presence over one WebSocket.

    from realtime_client import RealtimeClient

    async with RealtimeClient("wss://api.example.com/v1/live", token) as client:
        client.on("chat:message", lambda data: print(data["userId"], data["message"]))
        await client.subscribe("chatroom", chatroom_id="room_123")
        ack = await client.send_message("room_123", "Hello everyone!")
        async for event in client.events("chat:message", "market:price"):
            print(event.type, event.data)

The client

- queues requests until the connection is open,
- reconnects with exponential backoff, or after the delay that the server announces,
- restores all subscriptions and resumes each room and the inbox after the last item seen, edits and deletions included,
- delivers each message and each notification once and in order,
- resends unacknowledged messages under the same clientMessageId, in order per room,
- honours the server's rate limits,
- detects a dead connection,
- renews the token before it expires, if `token` is a coroutine function.

Events have the types and the data of the server's frames. The client adds `state` ({state, previous, code?, reason?,
retryInMs?, resumed?}), `missed` ({channel, chatroomId?, since, seq}: a gap to load over REST) and `subscription:lost`
({channel, …, code, message}). Requests raise RequestFailed, whose `code` is a code of the protocol. See
docs/client-guide.md.

Read `client` and `shell` with `options`, `events` and `status`, then `core` (requests and frames) and its `actions`,
`link` (the connection) with `credentials`, `heartbeat` and `reconnect`, `interest` (subscriptions, deduplication),
`cursor` (positions) and `requests`. `protocol` holds frames and close codes. `transport` alone uses aiohttp.
"""

from realtime_client.actions import TokenReason
from realtime_client.client import RealtimeClient
from realtime_client.events import Event, EventsOverflow
from realtime_client.options import ClientOptions
from realtime_client.protocol import FieldError
from realtime_client.requests import RequestFailed
from realtime_client.shell import TokenSource
from realtime_client.status import State, Stats

__all__ = [
    "ClientOptions",
    "Event",
    "EventsOverflow",
    "FieldError",
    "RealtimeClient",
    "RequestFailed",
    "State",
    "Stats",
    "TokenReason",
    "TokenSource",
]
