"""Support for the tests of the hub: a socket that records its frames, deliveries, and shorthands."""

from collections.abc import Sequence

from gateway.fanout.batch import Batch, Item
from gateway.fanout.hub import Hub
from gateway.fanout.wire import text_frame
from shared.bus.delivery import Delivery, DeliveryKind, market_channel, room_channel

ROOM = room_channel("r")
UNORDERED, LATEST, TRANSIENT = DeliveryKind.UNORDERED, DeliveryKind.LATEST, DeliveryKind.TRANSIENT


class RecordingSink:
    """A socket that records its frames."""

    def __init__(self, user_id: str, session_id: str = "") -> None:
        self.user_id = user_id
        self.session_id = session_id or f"sess_{user_id}"
        self.opened_ms = 0
        self.got: list[str] = []
        self.writes = 0
        self.ended: list[str] = []
        self.is_closed_for_resume = False

    def write(self, batch: Batch) -> None:
        assert batch.data == b"".join(item.data for item in batch.items), "data is not its items joined"
        assert batch.items, "an empty write"
        self.writes += 1
        for item in batch.items:
            payload = item.data[2:]
            assert item.data == text_frame(payload)
            self.got.append(payload.decode())

    def unsubscribed(self, channel: str) -> None:
        self.ended.append(channel)

    def close_for_resume(self) -> None:
        self.is_closed_for_resume = True

    def take(self) -> list[str]:
        got, self.got = self.got, []
        return got


def message(position: int, channel: str = ROOM, key: str = "") -> Delivery:
    """Return a message of a room, or with the room's id as `key` of a direct room."""
    return Delivery(channel, DeliveryKind.DIRECT if key else DeliveryKind.ORDERED, position, key, b"%d" % position)


def typing(text: str, without: str = "", channel: str = ROOM) -> Delivery:
    return Delivery(channel, TRANSIENT, 0, without, text.encode())


def price(position: int, symbol: str = "EUR") -> Delivery:
    return Delivery(market_channel(symbol), LATEST, position, symbol, b"%d" % position)


def greeting(text: str = "subscribed") -> list[bytes]:
    return [text_frame(text.encode())]


def listener(hub: Hub, user_id: str = "u", position: int = 0, channel: str = ROOM) -> RecordingSink:
    sink = RecordingSink(user_id)
    hub.join(sink, channel)
    assert go_live(hub, sink, channel, position, [], 0.0)
    return sink


def settle(hub: Hub, now_s: float) -> float:
    """Flush until no lane is due, and return the time."""
    while (due_s := hub.schedule.next_due_s) is not None:
        now_s = max(now_s, due_s)
        hub.schedule.flush(now_s)
    return now_s


def go_live(
    hub: Hub,
    sink: RecordingSink,
    name: str,
    position: int,
    greeting: Sequence[bytes],
    now_s: float,
    *,
    replayed: bool = False,
) -> bool:
    channel = hub.channels.get(name)
    return channel is not None and channel.go_live(sink, position, greeting, now_s, replayed=replayed)


def go_live_unordered(hub: Hub, sink: RecordingSink, name: str, greeting: Sequence[bytes] = ()) -> bool:
    channel = hub.channels.get(name)
    return channel is not None and channel.go_live_unordered(sink, greeting)


def go_live_prices(hub: Hub, sink: RecordingSink, name: str, max_rate: float, now_s: float) -> Item | None:
    channel = hub.channels.get(name)
    return None if channel is None else channel.go_live_prices(sink, max_rate, now_s)
