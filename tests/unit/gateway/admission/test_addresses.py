"""The client's address behind proxies, and its key in the per-address limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.addresses import client_address, counted_address, is_loopback, is_loopback_host, networks

TRUSTED = networks(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])


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


def test_ipv6_addresses_count_by_64() -> None:
    assert counted_address("2001:db8:1:2:3:4:5:6") == counted_address("2001:db8:1:2:ffff::")
    assert counted_address("2001:db8:1:2::") != counted_address("2001:db8:1:3::")


@given(st.text(), st.lists(st.text()))
def test_any_header_yields_an_address(peer: str, forwarded: list[str]) -> None:
    counted_address(client_address(peer, forwarded, TRUSTED))
    counted_address(client_address("10.0.0.1", forwarded, TRUSTED))


@pytest.mark.parametrize(
    ("peer", "forwarded", "is_here"),
    [
        ("127.0.0.1", [], True),
        ("127.9.9.9", [], True),
        ("::1", [], True),
        ("::ffff:127.0.0.1", [], True),
        ("127.0.0.1", ["::1, 127.0.0.1"], True),
        ("192.0.2.7", [], False),
        ("192.0.2.7", ["127.0.0.1"], False),  # forged by the client
        ("127.0.0.1", ["192.0.2.7"], False),  # a proxy on this machine
        ("127.0.0.1", ["127.0.0.1, 192.0.2.7"], False),
        ("127.0.0.1", ["unknown"], False),
        ("", [], False),
    ],
)
def test_only_loopback_hops_make_a_local_request(peer: str, forwarded: list[str], is_here: bool) -> None:
    assert is_loopback(peer, forwarded) == is_here


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"])
def test_loopback_names_are_local_hosts(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["", "rebound.example", "rebound.example:8080", "192.0.2.7:8080", "localhost.evil"])
def test_other_names_are_no_local_hosts(host: str) -> None:
    assert not is_loopback_host(host)
