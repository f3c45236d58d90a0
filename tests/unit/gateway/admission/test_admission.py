"""Admission at the WebSocket upgrade, and the client's address behind proxies."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.admission import Admission, Refused, client_address, counted_address, networks
from gateway.admission.pace import AT_ONCE_MIN, BUSY_AFTER, TOO_LATE_S, Pace
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode

TRUSTED = networks(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])


def admission(pace: Pace | None = None, **values: Any) -> Admission:
    settings = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32, **values)
    return Admission(settings, pace or Pace(), random.Random(7))


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


def test_sockets_per_address_are_limited() -> None:
    door = admission(max_connections_per_ip=2)
    first = enter(door)
    enter(door)
    refusal = refused(door)
    assert (refusal.reason, refusal.code) == ("address", ErrorCode.RATE_LIMITED)
    enter(door, peer="203.0.113.6")
    door.left(first)
    enter(door)


def test_refused_socket_is_not_counted() -> None:
    door = admission(max_connections=1, max_connections_per_ip=5, allowed_origins=("https://app.example",))
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


# Client address -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),  # untrusted peer: its header is ignored
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # the left part is forged by the client
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1 , 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, "], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("192.0.2.7", ["198.51.100.1"], "198.51.100.1"),
        ("192.0.2.8", ["198.51.100.1"], "192.0.2.8"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_rightmost_untrusted_address_counts(peer: str, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == address


def test_client_cannot_choose_its_address() -> None:
    door = admission(max_connections_per_ip=1, trusted_proxies=("10.0.0.1",))
    enter(door, peer="10.0.0.1", forwarded=["1.1.1.1, 198.51.100.1"])
    assert refused(door, peer="10.0.0.1", forwarded=["2.2.2.2, 198.51.100.1"]).reason == "address"


def test_ipv6_addresses_count_by_64() -> None:
    assert counted_address("2001:db8:1:2:3:4:5:6") == counted_address("2001:db8:1:2:ffff::")
    assert counted_address("2001:db8:1:2::") != counted_address("2001:db8:1:3::")


@given(st.text(), st.lists(st.text()))
def test_any_header_yields_an_address(peer: str, forwarded: list[str]) -> None:
    counted_address(client_address(peer, forwarded, TRUSTED))
    counted_address(client_address("10.0.0.1", forwarded, TRUSTED))
