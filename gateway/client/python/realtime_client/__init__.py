"""The realtime client for Python: asyncio, on aiohttp.

    from realtime_client import RealtimeClient

    async with RealtimeClient("wss://api.example.com/v1/live", token) as client:
        client.on("chat:message", lambda data: print(data["userId"], data["message"]))
        await client.subscribe("chatroom", chatroom_id="room_123")
        ack = await client.send_message("room_123", "Hello everyone!")
        async for event in client.events("chat:message", "market:price"):
            print(event.type, event.data)

What it does by itself: waits with everything until the connection is there; reconnects, with a growing, random pause or
when the server says; restores all subscriptions and asks for what was missed; shows no message and no notification
twice, nor out of order; resends what was not acked under the same clientMessageId, in order in each room; waits as long
as the server says when it limits messages; notices a link that is dead; renews the token before it ends, if `token` is
a coroutine function. See docs/client-guide.md.

Events have the frames' types, and their data as published. The client's own are `state` ({state, previous, code?,
reason?, retryInMs?, resumed?}), `missed` ({channel, chatroomId?, since, seq}: load it over REST) and
`subscription:lost` ({channel, …, code, message}). Requests raise RequestFailed, which has the protocol's `code`.
"""

from realtime_client.connection import Event, EventsOverflow, RealtimeClient, TokenSource
from realtime_client.link import ClientOptions, State, Stats, TokenReason
from realtime_client.protocol import FieldError
from realtime_client.requests import RequestFailed

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
