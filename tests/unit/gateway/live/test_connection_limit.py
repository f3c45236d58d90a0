"""A user's connections over all gateways: the limit is exact in sequence, and corrected after a race."""

import itertools
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.live.connection_counts import EXPIRES_AFTER_S, ConnectionCount, ConnectionCounts
from gateway.live.connection_limit import ConnectionLimit
from gateway.live.connections import Connections
from gateway.live.session import Close
from shared.bus.delivery import Delivery, user_channel
from shared.bus.publisher import Publisher
from shared.protocol.close_codes import CloseCode

MOST = 4
GATEWAYS = 3
_times_ms = itertools.count(1)


class CountedSocket:
    """The part of a socket that the limit counts."""

    def __init__(self) -> None:
        self.opened_ms = next(_times_ms)
        self.closing = False
        self.code: int | None = None

    def close(self, close: Close) -> None:
        self.closing, self.code = True, close.code


class GatewayOfOneUser:
    """The sockets of one user on one gateway. Its announcements wait in `lines` for delivery."""

    def __init__(self, number: int, lines: list[Delivery]) -> None:
        self.by_user: dict[str, set[CountedSocket]] = {}
        self._lines = lines
        self.limit = ConnectionLimit(cast(Connections, self), cast(Publisher, self), f"node_{number}", MOST)

    def open_count(self, user_id: str) -> int:
        return sum(not socket.closing for socket in self.by_user.get(user_id, ()))

    def newest_open(self, user_id: str) -> CountedSocket | None:
        here = [socket for socket in self.by_user.get(user_id, ()) if not socket.closing]
        return max(here, key=lambda socket: socket.opened_ms, default=None)

    def deliver(self, delivery: Delivery) -> None:
        assert delivery.channel == user_channel("u")
        self._lines.append(delivery)

    def open(self) -> CountedSocket | None:
        if not self.limit.may_open("u"):
            return None
        socket = CountedSocket()
        self.by_user.setdefault("u", set()).add(socket)
        self.limit.note_opened("u")
        return socket

    def close(self) -> None:
        """Close the oldest one."""
        if here := sorted(self.by_user.get("u", ()), key=lambda socket: socket.opened_ms):
            self.remove(here[0])

    def remove(self, socket: CountedSocket) -> None:
        self.by_user["u"].discard(socket)
        if not self.by_user["u"]:
            del self.by_user["u"]
        self.limit.note_closed("u")

    def remove_closed(self) -> bool:
        gone = [socket for socket in self.by_user.get("u", ()) if socket.closing]
        for socket in gone:
            assert socket.code == CloseCode.OVERLOADED
            self.remove(socket)
        return bool(gone)

    @property
    def count(self) -> int:
        return len(self.by_user.get("u", ()))


class Gateways:
    def __init__(self) -> None:
        self.lines: list[Delivery] = []
        self.gateways = [GatewayOfOneUser(number, self.lines) for number in range(GATEWAYS)]

    @property
    def count(self) -> int:
        return sum(gateway.count for gateway in self.gateways)

    def settle(self) -> None:
        """Deliver every line to every gateway, until none announces anything."""
        while self.lines or any([gateway.remove_closed() for gateway in self.gateways]):
            if self.lines:
                delivery = self.lines.pop(0)
                for gateway in self.gateways:
                    gateway.limit.observe("u", delivery.frame)


steps = st.lists(st.tuples(st.integers(0, GATEWAYS - 1), st.sampled_from(("open", "open", "close"))), max_size=40)


@given(steps)
def test_limit_is_exact_for_sequential_connections(plan: list[tuple[int, str]]) -> None:
    world = Gateways()
    for number, what in plan:
        before = world.count
        if what == "open":
            assert (world.gateways[number].open() is not None) == (before < MOST)
        else:
            world.gateways[number].close()
        world.settle()
        assert world.count == before or abs(world.count - before) == 1


@given(st.lists(steps, max_size=4))
def test_newest_connections_are_closed_when_the_limit_is_exceeded(rounds: list[list[tuple[int, str]]]) -> None:
    world = Gateways()
    for plan in rounds:
        for number, what in plan:
            if what == "open":
                world.gateways[number].open()
            else:
                world.gateways[number].close()
        world.settle()
        for gateway in world.gateways:
            if gateway.by_user:
                gateway.open()  # the next connection reveals the excess to all gateways
                world.settle()
        assert world.count <= MOST


def test_users_with_one_socket_are_not_announced() -> None:
    world = Gateways()
    for gateway in world.gateways:
        assert gateway.open() is not None
    assert world.lines == []
    assert world.gateways[0].open() is not None
    assert len(world.lines) == 1
    world.settle()
    assert world.gateways[1].open() is None


def test_counts_of_a_vanished_gateway_expire() -> None:
    counts = ConnectionCounts("here", MOST)
    assert counts.observe("u", ConnectionCount("there", 4, 1), 100.0)
    assert not counts.observe("u", ConnectionCount("here", 4, 1), 100.0)
    assert counts.count_elsewhere("u", 100.0 + EXPIRES_AFTER_S - 0.1) == 4
    assert counts.count_elsewhere("u", 100.0 + EXPIRES_AFTER_S) == 0
    counts.expire(100.0 + EXPIRES_AFTER_S)
    assert counts._counts == {}


def test_latest_count_replaces_earlier_ones() -> None:
    counts = ConnectionCounts("here", MOST)
    counts.observe("u", ConnectionCount("there", 4, 1), 100.0)
    counts.observe("u", ConnectionCount("there", 0, 0), 101.0)
    assert counts.count_elsewhere("u", 101.0) == 0
    assert counts._counts == {}
