"""A user's sockets over all gateways: counted exactly one after another, and put right when they come at once."""

import itertools
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.live.census import FORGOTTEN_AFTER_S, Census, SocketCount
from gateway.live.connection_limit import UserSockets
from gateway.live.connections import Connections
from gateway.live.session import Close
from shared.bus.delivery import Delivery, user_channel
from shared.bus.publisher import Publisher
from shared.protocol.close_codes import CloseCode

MOST = 4
GATEWAYS = 3
_times_ms = itertools.count(1)


class Socket:
    """What counts of a socket."""

    def __init__(self) -> None:
        self.opened_ms = next(_times_ms)
        self.closing = False
        self.code: int | None = None

    def close(self, close: Close) -> None:
        self.closing, self.code = True, close.code


class Gateway:
    """The sockets of one user on one gateway. What it tells waits in `lines` until it is brought to all."""

    def __init__(self, number: int, lines: list[Delivery]) -> None:
        self.by_user: dict[str, set[Socket]] = {}
        self._lines = lines
        self.sockets = UserSockets(cast(Connections, self), cast(Publisher, self), f"node_{number}", MOST)

    def deliver(self, delivery: Delivery) -> None:
        assert delivery.channel == user_channel("u")
        self._lines.append(delivery)

    def open(self) -> Socket | None:
        if not self.sockets.may_open("u"):
            return None
        socket = Socket()
        self.by_user.setdefault("u", set()).add(socket)
        self.sockets.opened("u")
        return socket

    def close(self) -> None:
        """The oldest one goes."""
        if here := sorted(self.by_user.get("u", ()), key=lambda socket: socket.opened_ms):
            self.remove(here[0])

    def remove(self, socket: Socket) -> None:
        self.by_user["u"].discard(socket)
        if not self.by_user["u"]:
            del self.by_user["u"]
        self.sockets.closed("u")

    def remove_closed(self) -> bool:
        gone = [socket for socket in self.by_user.get("u", ()) if socket.closing]
        for socket in gone:
            assert socket.code == CloseCode.OVERLOADED
            self.remove(socket)
        return bool(gone)

    @property
    def count(self) -> int:
        return len(self.by_user.get("u", ()))


class World:
    def __init__(self) -> None:
        self.lines: list[Delivery] = []
        self.gateways = [Gateway(number, self.lines) for number in range(GATEWAYS)]

    @property
    def count(self) -> int:
        return sum(gateway.count for gateway in self.gateways)

    def settle(self) -> None:
        """Bring every line to every gateway, until nobody has anything to say."""
        while self.lines or any([gateway.remove_closed() for gateway in self.gateways]):
            if self.lines:
                delivery = self.lines.pop(0)
                for gateway in self.gateways:
                    gateway.sockets.heard("u", delivery.frame)


steps = st.lists(st.tuples(st.integers(0, GATEWAYS - 1), st.sampled_from(("open", "open", "close"))), max_size=40)


@given(steps)
def test_one_after_another_exactly_so_many_are_let_in(plan: list[tuple[int, str]]) -> None:
    world = World()
    for number, what in plan:
        before = world.count
        if what == "open":
            assert (world.gateways[number].open() is not None) == (before < MOST)
        else:
            world.gateways[number].close()
        world.settle()
        assert world.count == before or abs(world.count - before) == 1


@given(st.lists(steps, max_size=4))
def test_at_the_same_moment_the_newest_that_are_too_many_are_closed(rounds: list[list[tuple[int, str]]]) -> None:
    world = World()
    for plan in rounds:
        for number, what in plan:
            if what == "open":
                world.gateways[number].open()
            else:
                world.gateways[number].close()
        world.settle()
        for gateway in world.gateways:
            if gateway.by_user:
                gateway.open()  # whoever comes next shows all others that there are too many
                world.settle()
        assert world.count <= MOST


def test_users_with_one_socket_cost_nothing() -> None:
    world = World()
    for gateway in world.gateways:
        assert gateway.open() is not None
    assert world.lines == []
    assert world.gateways[0].open() is not None
    assert len(world.lines) == 1
    world.settle()
    assert world.gateways[1].open() is None


def test_a_gateway_that_is_gone_counts_no_more() -> None:
    census = Census("here", MOST)
    assert census.heard("u", SocketCount("there", 4, 1), 100.0)
    assert not census.heard("u", SocketCount("here", 4, 1), 100.0)
    assert census.elsewhere("u", 100.0 + FORGOTTEN_AFTER_S - 0.1) == 4
    assert census.elsewhere("u", 100.0 + FORGOTTEN_AFTER_S) == 0
    census.forget_old(100.0 + FORGOTTEN_AFTER_S)
    assert census._heard == {}


def test_what_is_told_last_counts() -> None:
    census = Census("here", MOST)
    census.heard("u", SocketCount("there", 4, 1), 100.0)
    census.heard("u", SocketCount("there", 0, 0), 101.0)
    assert census.elsewhere("u", 101.0) == 0
    assert census._heard == {}
