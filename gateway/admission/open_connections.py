"""The bound on open TCP connections, in total and by address. Pure: injected randomness.

    arrive ──> idle <───────> busy ──> a socket, or closed: `left`
                 └─ closed first when the gateway, or the address, is full

A connection without a request in progress is idle: a new one, or one that is kept alive. If no connection is idle, the
arriving one is refused. Unauthenticated connections therefore cannot displace those in use.
"""

import random
from typing import Protocol

from gateway.admission.addresses import counted_address, is_within, networks
from gateway.admission.refused import FULL_RETRY_MS, refused_for_now
from gateway.settings import GatewaySettings

HTTP_CONNECTIONS_MAX = 256  # beyond MAX_CONNECTIONS: for REST while the gateway is full of sockets
FILES_RESERVED = 64  # listeners, the broker, the admin port, logs


class IdleConnection(Protocol):
    """A connection that can be closed without loss."""

    def abort(self) -> None:
        """Close the connection; `left` is called soon afterwards."""


class OpenConnections:
    """All open TCP connections. The caller pairs each successful `arrive` with one `left`.

    Bound: the smaller of MAX_CONNECTIONS + 256 and the limit of open files less 64; MAX_CONNECTIONS_PER_IP for each
    address, not counting those of a trusted proxy. The module describes the behaviour beyond it.
    """

    def __init__(self, settings: GatewaySettings, chance: random.Random) -> None:
        self._max = settings.max_connections + HTTP_CONNECTIONS_MAX
        self._per_address = settings.max_connections_per_ip
        self._trusted = networks(settings.trusted_proxies)
        self._chance = chance
        self._idle: dict[IdleConnection, str] = {}  # the longest idle first, like the others
        self._idle_by_address: dict[str, dict[IdleConnection, None]] = {}
        self._by_address: dict[str, int] = {}
        self.count = 0

    def arrive(self, peer: str, files_max: int) -> str:
        """Count a connection. Return its key in the per-address limit; "" if not counted. Raises Refused."""
        is_counted = bool(self._per_address) and not is_within(peer, self._trusted)
        address = counted_address(peer) if is_counted else ""
        if address and self._by_address.get(address, 0) >= self._per_address:
            self._evict(next(iter(self._idle_by_address.get(address, ())), None), "address")
        if self.count >= min(self._max, files_max - FILES_RESERVED):
            self._evict(next(iter(self._idle), None), "full")
        self.count += 1
        if address:
            self._by_address[address] = self._by_address.get(address, 0) + 1
        return address

    def left(self, address: str) -> None:
        """Release a closed connection."""
        self.count -= 1
        self.release_address(address)

    # Addresses behind a trusted proxy -------------------------------------------------------------------------------

    def counts_later(self, peer: str) -> bool:
        """Return whether the connections of this peer are counted at their upgrade, since it is a trusted proxy."""
        return bool(self._per_address) and is_within(peer, self._trusted)

    def count_address(self, client: str) -> str:
        """Count one more connection of a client behind a proxy, and return its key. Raises Refused."""
        address = counted_address(client)
        if self._by_address.get(address, 0) >= self._per_address:
            self._evict(None, "address")
        self._by_address[address] = self._by_address.get(address, 0) + 1
        return address

    def release_address(self, address: str) -> None:
        """Uncount one connection of an address."""
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    # Idle connections -----------------------------------------------------------------------------------------------

    def became_idle(self, connection: IdleConnection, address: str) -> None:
        """Note a connection without a request in progress."""
        self._idle[connection] = address
        if address:
            self._idle_by_address.setdefault(address, {})[connection] = None

    def became_busy(self, connection: IdleConnection) -> None:
        """Note a connection that is in use, or gone."""
        address = self._idle.pop(connection, "")
        if address:
            idle = self._idle_by_address[address]
            del idle[connection]
            if not idle:
                del self._idle_by_address[address]

    def _evict(self, connection: IdleConnection | None, reason: str) -> None:
        """Close an idle connection to make room. Raises Refused if there is none."""
        if connection is None:
            message = "too many connections from this address" if reason == "address" else "this gateway is full"
            raise refused_for_now(reason, message, FULL_RETRY_MS, self._chance)
        self.became_busy(connection)
        connection.abort()
