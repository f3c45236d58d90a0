"""Admission decision at the WebSocket upgrade. Pure: no clock, injected randomness.

A client is admitted if the gateway is not draining, the Origin is allowed (`ALLOWED_ORIGINS`), the gateway has room
(`MAX_CONNECTIONS`, `MAX_CONNECTIONS_PER_IP`), and the event loop is not overloaded. A refusal carries a randomised
retry delay, so that refused clients do not return at the same moment.
"""

import random
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.admission.pace import Pace
from gateway.origins import OriginPolicy
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode, Refusal

FULL_RETRY_MS = (2_000, 10_000)
BUSY_RETRY_MS = (1_000, 6_000)
LEAVING_RETRY_MS = (1_000, 2_000)

Network = IPv4Network | IPv6Network


class Refused(Refusal):
    """A refused upgrade. `reason` is a metric label."""

    def __init__(self, reason: str, code: ErrorCode, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(code, message, retry_after_ms=retry_after_ms)
        self.reason = reason


class Admission:
    """Counts open sockets, in total and by address. The caller pairs each successful `enter` with one `left`."""

    def __init__(self, settings: GatewaySettings, pace: Pace, chance: random.Random) -> None:
        self._settings = settings
        self._pace = pace
        self._chance = chance
        self._origins = OriginPolicy(settings.allowed_origins)
        self._trusted = networks(settings.trusted_proxies)
        self._open = 0
        self._by_address: dict[str, int] = {}
        self.draining = False

    def enter(self, peer: str, forwarded: Sequence[str], origins: Iterable[str]) -> str:
        """Reserve a socket and return the address that it counts for, or "" if addresses are not counted.

        `forwarded` holds the values of X-Forwarded-For in order. Raises Refused.
        """
        if self.draining:
            raise self._later("draining", "this gateway is shutting down", LEAVING_RETRY_MS)
        if not all(map(self._origins.allows, origins)):
            raise Refused("origin", ErrorCode.FORBIDDEN, "this origin is not allowed")
        if self._open >= self._settings.max_connections:
            raise self._later("full", "this gateway is full", FULL_RETRY_MS)
        if self._pace.is_busy:
            raise self._later("busy", "this gateway is overloaded", BUSY_RETRY_MS)
        address = ""
        if limit := self._settings.max_connections_per_ip:
            address = counted_address(client_address(peer, forwarded, self._trusted))
            if self._by_address.get(address, 0) >= limit:
                raise self._later("address", "too many connections from this address", FULL_RETRY_MS)
            self._by_address[address] = self._by_address.get(address, 0) + 1
        self._open += 1
        return address

    def left(self, address: str) -> None:
        """Release the reservation of a closed socket."""
        self._open -= 1
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _later(self, reason: str, message: str, between_ms: tuple[int, int]) -> Refused:
        code = ErrorCode.RATE_LIMITED if reason == "address" else ErrorCode.UNAVAILABLE
        return Refused(reason, code, message, self._chance.randint(*between_ms))


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse addresses and CIDR ranges. Raises ValueError."""
    return tuple(ip_network(text) for text in texts)


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: the peer's, or the rightmost untrusted hop if the peer is a trusted proxy.

    Hops to the left of the first untrusted address were written by that client and are ignored.
    """
    address = _address_of(peer) or peer
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and _is_within(address, trusted):
        hop = _address_of(hops.pop())
        if hop is None:
            break
        address = hop
    return address


def counted_address(address: str) -> str:
    """Return the key that an address is counted under: an IPv4 address, or the /64 of an IPv6 address.

    One IPv6 customer usually has a /64.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return address


def _address_of(text: str) -> str | None:
    """Return the address in `1.2.3.4`, `1.2.3.4:567`, `::1` or `[::1]:567`, or None."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def _is_within(address: str, ranges: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in ranges)
