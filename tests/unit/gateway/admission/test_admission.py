"""Admission at the WebSocket upgrade."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.admission.admission import Admission
from gateway.admission.open_connections import OpenConnections
from gateway.admission.pace import AT_ONCE_MIN, BUSY_AFTER, TOO_LATE_S, Pace
from gateway.admission.refused import Refused
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode

PROXY = "10.0.0.1"


def admission(pace: Pace | None = None, **values: Any) -> Admission:
    settings = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32, **values)
    chance = random.Random(7)
    return Admission(settings, pace or Pace(), OpenConnections(settings, chance), chance)


def enter(
    door: Admission, peer: str = "203.0.113.5", forwarded: Sequence[str] = (), origins: Sequence[str] = ()
) -> str:
    return door.enter(peer, forwarded, origins)


def refused(door: Admission, **values: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        enter(door, **values)
    return caught.value


# The decision -------------------------------------------------------------------------------------------------------


def test_full_gateway_refuses_until_a_socket_closes() -> None:
    door = admission(max_connections=2)
    enter(door)
    leaving = enter(door)
    refusal = refused(door)
    assert (refusal.reason, refusal.code) == ("full", ErrorCode.UNAVAILABLE)
    door.left(leaving)
    enter(door)


def test_lone_star_allows_every_origin() -> None:
    enter(admission(allowed_origins=("*",)), origins=["https://app.example"])


def test_draining_gateway_refuses() -> None:
    door = admission()
    door.draining = True
    assert refused(door).reason == "draining"


def test_retry_delays_are_spread() -> None:
    door = admission(max_connections=1)
    enter(door)
    times = [refused(door).retry_after_ms or 0 for _ in range(200)]
    assert min(times) >= 1000
    assert len(set(times)) > 150


@pytest.mark.parametrize("origins", [["https://evil.example"], ["null"], [""], ["https://app.example", "https://x"]])
def test_unknown_origin_is_refused(origins: list[str]) -> None:
    door = admission(allowed_origins=("https://app.example",))
    assert refused(door, origins=origins).code is ErrorCode.FORBIDDEN
    enter(door, origins=["https://app.example"])
    enter(door)  # clients other than browsers send no Origin


def test_sockets_per_address_behind_a_proxy_are_limited() -> None:
    door = admission(max_connections_per_ip=2, trusted_proxies=(PROXY,))
    first = enter(door, PROXY, ["198.51.100.1"])
    enter(door, PROXY, ["198.51.100.1"])
    refusal = refused(door, peer=PROXY, forwarded=["198.51.100.1"])
    assert (refusal.reason, refusal.code) == ("address", ErrorCode.RATE_LIMITED)
    enter(door, PROXY, ["198.51.100.2"])
    door.left(first)
    enter(door, PROXY, ["198.51.100.1"])


def test_upgrade_of_a_direct_client_is_not_counted_again() -> None:
    door = admission(max_connections_per_ip=1, trusted_proxies=(PROXY,))
    assert [enter(door, "203.0.113.5", ["198.51.100.1"]) for _ in range(3)] == ["", "", ""]


def test_client_cannot_choose_its_address() -> None:
    door = admission(max_connections_per_ip=1, trusted_proxies=(PROXY,))
    enter(door, peer=PROXY, forwarded=["1.1.1.1, 198.51.100.1"])
    assert refused(door, peer=PROXY, forwarded=["2.2.2.2, 198.51.100.1"]).reason == "address"


def test_refused_socket_is_not_counted() -> None:
    door = admission(max_connections=1, allowed_origins=("https://app.example",))
    for _ in range(10):
        refused(door, origins=["https://evil.example"])
    address = enter(door)
    for _ in range(10):
        refused(door)
    door.left(address)
    enter(door)


def test_addresses_are_not_counted_by_default() -> None:
    door = admission()
    for _ in range(1000):
        enter(door)


def test_lagging_event_loop_refuses_until_it_recovers() -> None:
    pace = Pace()
    door = admission(pace)
    while pace.limit > AT_ONCE_MIN:
        pace.measured(TOO_LATE_S + 0.1)
    for _ in range(BUSY_AFTER):
        enter(door)  # a short overload refuses no one
        pace.measured(TOO_LATE_S + 0.1)
    assert refused(door).reason == "busy"
    pace.measured(0.0)
    enter(door)
