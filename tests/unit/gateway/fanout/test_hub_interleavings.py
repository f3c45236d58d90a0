"""Rooms under any interleaving of deliveries, losses and subscribers."""

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.fanout.flush_schedule import GATHER_MIN_S
from gateway.fanout.hub import Hub
from gateway.fanout.stream import OVERDUE_S
from gateway.fanout.wire import text_frame
from tests.unit.gateway.fanout.hub_support import (
    ROOM,
    RecordingSink,
    go_live,
    message,
)


@dataclass
class RoomClient:
    """A socket and its expectation: `next` is the position that must arrive next; None while it does not listen."""

    sink: RecordingSink
    next: int | None = None
    asked: tuple[int, int | None] | None = None  # the worker's head, and `since`
    seen: list[str] = field(default_factory=list)


class RoomWorld:
    """One room: the worker that numbers its messages, a bus that loses, repeats and reorders, one gateway."""

    def __init__(self, clients: int) -> None:
        self.hub = Hub()
        self.now_s = 100.0
        self.head = 0
        self.bus: list[int] = []
        self.clients = [RoomClient(RecordingSink(f"u{number}")) for number in range(clients)]

    def publish(self) -> None:
        self.head += 1
        self.bus.append(self.head)

    def check(self) -> None:
        """Assert that each socket got the expected items."""
        for client in self.clients:
            for text in client.sink.take():
                client.seen.append(text)
                if text.startswith("since "):
                    client.next = int(text.removeprefix("since ")) + 1
                elif text.startswith("head "):
                    client.next = client.next or int(text.removeprefix("head ")) + 1
                else:
                    assert client.next == int(text), f"{client.sink.user_id} got {client.seen}"
                    client.next += 1

    def join(self, client: RoomClient, since_back: int | None) -> None:
        """Read a subscribe frame; the worker answers later."""
        if client.asked is not None:
            return  # frames of one socket are handled one after the other
        self.hub.join(client.sink, ROOM)
        self.check()
        client.asked = (-1, since_back)

    def answer(self, client: RoomClient) -> None:
        """Let the worker answer with the room's head."""
        if client.asked is not None and client.asked[0] < 0:
            client.asked = (self.head, client.asked[1])

    def admit(self, client: RoomClient) -> None:
        if client.asked is None or client.asked[0] < 0:
            return
        (head, since_back), client.asked = client.asked, None
        if since_back is None:
            frames = [f"head {head}"]
        else:
            since = max(head - since_back, 0)
            frames = [f"since {since}", *(str(position) for position in range(since + 1, head + 1))]
        data = [text_frame(text.encode()) for text in frames]
        assert go_live(self.hub, client.sink, ROOM, head, data, self.now_s, replayed=since_back is not None)
        self.check()

    def leave(self, client: RoomClient, *, drop: bool) -> None:
        if drop:
            self.hub.drop(client.sink)
        else:
            self.hub.leave(client.sink, ROOM)
        self.check()
        client.asked, client.next = None, None

    def carry(self, at: int, *, fate: str) -> None:
        """Deliver one of the messages in transit."""
        if not self.bus:
            return
        at = 0 if fate == "in order" else at % len(self.bus)
        position = self.bus[at] if fate == "repeated" else self.bus.pop(at)
        if fate != "lost":
            self.hub.deliver(message(position), self.now_s)

    def fill(self, *, partly: bool = False) -> None:
        """Fetch the missing items, or the first half of them."""
        for name in list(self.hub.gaps):
            self.hub.gaps.discard(name)
            channel = self.hub.channels.get(name)
            gap = None if channel is None else channel.stream.missing()
            if gap is not None:
                through = (gap.after + 1 + gap.through) // 2 if partly else gap.through
                frames = [[b"%d" % position] for position in range(gap.after + 1, through + 1)]
                self.hub.fill(gap._replace(through=through), gap.after + 1, frames, self.now_s)

    def wait(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.hub.schedule.flush(self.now_s)
        self.check()

    def finish(self) -> None:
        """Deliver every message, answer every request, and fill every gap."""
        for client in self.clients:
            self.answer(client)
            self.admit(client)
        while self.bus:
            self.carry(0, fate="in order")
        self.hub.note_head_and_gap(ROOM, self.head)
        for _ in range(20):
            self.wait(OVERDUE_S + 1)
            self.hub.note_overdue(self.now_s)
            self.fill()
        self.wait(1.0)
        assert self.hub.schedule.next_due_s is None
        for client in self.clients:
            if client.next is not None:
                assert client.next == self.head + 1, f"{client.sink.user_id} has {client.seen} of {self.head}"


whose = st.integers(0, 3)
room_steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("carry"), st.tuples(st.just("in order"), st.just(0))),
        st.tuples(
            st.just("carry"), st.tuples(st.sampled_from(["in order", "early", "repeated", "lost"]), st.integers(0, 5))
        ),
        st.tuples(st.just("join"), st.tuples(whose, st.none() | st.integers(0, 4))),
        st.tuples(st.just("answer"), whose),
        st.tuples(st.just("admit"), whose),
        st.tuples(st.just("subscribe"), st.tuples(whose, st.none() | st.integers(0, 4))),
        st.tuples(st.just("leave"), st.tuples(whose, st.booleans())),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, GATHER_MIN_S, 2.0])),
        st.tuples(st.just("fill"), st.booleans()),
        st.tuples(st.just("overdue"), st.none()),
    ),
    max_size=70,
)


@given(room_steps)
@example(  # a message is sent between two answers, and the later answer arrives first
    [
        ("join", (1, None)),
        ("answer", 1),
        ("publish", 1),
        ("subscribe", (0, None)),
        ("admit", 1),
    ]
)
def test_live_socket_gets_every_later_item_once(script: list[tuple[str, object]]) -> None:
    world = RoomWorld(clients=4)
    for kind, detail in script:
        match kind, detail:
            case "publish", int(count):
                for _ in range(count):
                    world.publish()
            case "carry", (str(fate), int(at)):
                world.carry(at, fate=fate)
            case "join", (int(who), since_back):
                assert since_back is None or isinstance(since_back, int)
                world.join(world.clients[who], since_back)
            case "answer", int(who):
                world.answer(world.clients[who])
            case "admit", int(who):
                world.admit(world.clients[who])
            case "subscribe", (int(who), since_back):
                assert since_back is None or isinstance(since_back, int)
                client = world.clients[who]
                world.join(client, since_back)
                world.answer(client)
                world.admit(client)
            case "leave", (int(who), bool(drop)):
                world.leave(world.clients[who], drop=drop)
            case "wait", float(pause_s):
                world.wait(pause_s)
            case "fill", bool(partly):
                world.fill(partly=partly)
            case "overdue", _:
                world.hub.note_overdue(world.now_s)
    world.finish()
