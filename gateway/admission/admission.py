"""Admission decision at the WebSocket upgrade. Pure: no clock, injected randomness.

A client is admitted if the gateway is not draining, the Origin is allowed (`ALLOWED_ORIGINS`), the gateway has room
(`MAX_CONNECTIONS`), and the event loop is not overloaded. Behind a trusted proxy, its address is counted here
(`MAX_CONNECTIONS_PER_IP`); otherwise its connection was counted when it arrived (`open_connections`).
"""

import random
from collections.abc import Iterable, Sequence

from gateway.admission.addresses import client_address, networks
from gateway.admission.open_connections import OpenConnections
from gateway.admission.pace import Pace
from gateway.admission.refused import BUSY_RETRY_MS, FULL_RETRY_MS, LEAVING_RETRY_MS, Refused, refused_for_now
from gateway.origins import OriginPolicy
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode


class Admission:
    """Counts open sockets. Pair each successful `enter` with one `left`."""

    def __init__(
        self, settings: GatewaySettings, pace: Pace, connections: OpenConnections, chance: random.Random
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._connections = connections
        self._chance = chance
        self._origins = OriginPolicy(settings.allowed_origins)
        self._trusted = networks(settings.trusted_proxies)
        self._open = 0
        self.draining = False

    def enter(self, peer: str, forwarded: Sequence[str], origins: Iterable[str]) -> str:
        """Reserve a socket. Return the key of this connection in the per-address limit; "" if not counted here.

        `forwarded` holds the values of X-Forwarded-For in order. Raises Refused.
        """
        if self.draining:
            raise refused_for_now("draining", "this gateway is shutting down", LEAVING_RETRY_MS, self._chance)
        if not all(map(self._origins.allows, origins)):
            raise Refused("origin", ErrorCode.FORBIDDEN, "this origin is not allowed")
        if self._open >= self._settings.max_connections:
            raise refused_for_now("full", "this gateway is full", FULL_RETRY_MS, self._chance)
        if self._pace.is_busy:
            raise refused_for_now("busy", "this gateway is overloaded", BUSY_RETRY_MS, self._chance)
        address = ""
        if self._connections.counts_later(peer):
            address = self._connections.count_address(client_address(peer, forwarded, self._trusted))
        self._open += 1
        return address

    def left(self, address: str) -> None:
        """Release a closed socket, and its connection."""
        self._open -= 1
        self._connections.left(address)
