"""The bound on TCP connections: idle ones make room, those in use stay."""

import random
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.admission.open_connections import FILES_RESERVED, HTTP_CONNECTIONS_MAX, OpenConnections
from gateway.admission.refused import Refused
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode

MANY_FILES = 1_000_000
PEER, OTHER, PROXY = "203.0.113.5", "203.0.113.6", "10.0.0.1"


class Held:
    """A connection that is counted until it is closed."""

    def __init__(self, bound: OpenConnections, peer: str = PEER, files_max: int = MANY_FILES) -> None:
        self._bound = bound
        self.address = bound.arrive(peer, files_max)
        self.is_open = True
        bound.became_idle(self, self.address)

    def use(self) -> "Held":
        self._bound.became_busy(self)
        return self

    def rest(self) -> None:
        self._bound.became_idle(self, self.address)

    def abort(self) -> None:
        assert self.is_open
        self.is_open = False
        self._bound.became_busy(self)
        self._bound.left(self.address)


def bound(**values: Any) -> OpenConnections:
    settings = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32, **values)
    return OpenConnections(settings, random.Random(3))


def refused(connections: OpenConnections, peer: str = PEER, files_max: int = MANY_FILES) -> Refused:
    with pytest.raises(Refused) as caught:
        connections.arrive(peer, files_max)
    return caught.value


def test_longest_idle_connection_makes_room() -> None:
    connections = bound(max_connections=1)
    held = [Held(connections) for _ in range(1 + HTTP_CONNECTIONS_MAX)]
    held[0].use()
    held[1].use().rest()
    newest = Held(connections)
    assert [number for number, one in enumerate(held) if not one.is_open] == [2]
    assert newest.is_open
    assert connections.count == 1 + HTTP_CONNECTIONS_MAX


def test_connection_is_refused_if_all_others_are_in_use() -> None:
    connections = bound(max_connections=1)
    held = [Held(connections).use() for _ in range(1 + HTTP_CONNECTIONS_MAX)]
    refusal = refused(connections)
    assert (refusal.reason, refusal.code) == ("full", ErrorCode.UNAVAILABLE)
    assert (refusal.retry_after_ms or 0) >= 1000
    assert all(one.is_open for one in held)
    held[0].abort()
    assert Held(connections).is_open


def test_files_of_the_process_bound_connections() -> None:
    connections = bound()
    files_max = FILES_RESERVED + 3
    held = [Held(connections, files_max=files_max) for _ in range(4)]
    assert [one.is_open for one in held] == [False, True, True, True]
    for one in held[1:]:
        one.use()
    assert refused(connections, files_max=files_max).reason == "full"


def test_connections_of_an_address_are_bounded() -> None:
    connections = bound(max_connections_per_ip=2)
    other = Held(connections, OTHER)
    held = [Held(connections).use(), Held(connections).use()]
    refusal = refused(connections)
    assert (refusal.reason, refusal.code) == ("address", ErrorCode.RATE_LIMITED)
    held[1].rest()
    assert Held(connections).is_open
    assert [one.is_open for one in (other, *held)] == [True, True, False]


def test_addresses_of_one_network_count_together() -> None:
    connections = bound(max_connections_per_ip=1)
    Held(connections, "2001:db8:1:2::1").use()
    assert refused(connections, "2001:db8:1:2:ffff::").reason == "address"
    assert Held(connections, "2001:db8:1:3::1").is_open


def test_connections_of_a_trusted_proxy_are_not_counted_for_its_address() -> None:
    connections = bound(max_connections_per_ip=1, trusted_proxies=(PROXY,))
    assert {Held(connections, PROXY).use().address for _ in range(5)} == {""}
    assert connections.counts_later(PROXY)
    assert not connections.counts_later(PEER)


def test_proxied_and_direct_connections_are_counted_separately() -> None:
    connections = bound(max_connections_per_ip=2, trusted_proxies=(PROXY,))
    connections.count_address(PEER)
    direct = Held(connections).use()
    with pytest.raises(Refused):
        connections.count_address(PEER)
    direct.abort()
    connections.count_address(PEER)


def test_addresses_are_not_counted_by_default() -> None:
    connections = bound()
    assert {Held(connections).use().address for _ in range(50)} == {""}


class OpenConnectionsMachine(RuleBasedStateMachine):
    """Connections arrive, rest, are used and leave in any order: counts stay right and bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = bound(max_connections_per_ip=2)
        self.held: list[Held] = []

    @rule()
    def arrive(self) -> None:
        for peer in (PEER, OTHER):
            try:
                self.held.append(Held(self.connections, peer, FILES_RESERVED + 3))
            except Refused:
                assert not any(
                    one.is_open and one.address == peer for one in self.connections._idle if isinstance(one, Held)
                )

    @precondition(lambda self: any(one.is_open for one in self.held))
    @rule()
    def use_the_first(self) -> None:
        self.first().use()

    @precondition(lambda self: any(one.is_open for one in self.held))
    @rule()
    def rest_the_first(self) -> None:
        self.first().use().rest()

    @precondition(lambda self: any(one.is_open for one in self.held))
    @rule()
    def close_the_first(self) -> None:
        self.first().abort()

    def first(self) -> Held:
        return next(one for one in self.held if one.is_open)

    @invariant()
    def bounds_hold(self) -> None:
        alive = [one for one in self.held if one.is_open]
        assert self.connections.count == len(alive) <= 3
        for peer in (PEER, OTHER):
            assert sum(one.address == peer for one in alive) <= 2


TestOpenConnections = OpenConnectionsMachine.TestCase
