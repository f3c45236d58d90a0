"""Rates of a user that each gateway counts by itself: signals, subscribes, REST reads. Pure; time is an argument."""

import itertools

from gateway.settings import GatewaySettings
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import ChatRead, ChatTyping, PresenceGet, Request, Subscribe
from shared.rate_window import SlidingWindow


class UserRate:
    """At most `limit` items of one user in any minute; admins and services are exempt.

    Bound: that of `SlidingWindow`, which keeps only the items of the last minute.
    """

    def __init__(self, limit: int, excess: str) -> None:
        self._window = SlidingWindow(limit)
        self._excess = excess
        self._ids = itertools.count()

    def count(self, caller: Caller, now_ms: int) -> None:
        """Count one item. Raises RATE_LIMITED above the limit; then the item does not count."""
        if caller.pays_only_message_rate:
            return
        wait_ms = self._window.charge(caller.user_id, next(self._ids), now_ms)
        if wait_ms:
            raise Refusal(ErrorCode.RATE_LIMITED, self._excess, retry_after_ms=wait_ms)


class UserRates:
    """The rates of one gateway process."""

    def __init__(self, settings: GatewaySettings) -> None:
        signals = UserRate(settings.rate_signals_per_minute, "too many typing, read and presence frames")
        self.reads = UserRate(settings.rate_reads_per_minute, "too many reads")
        self._by_frame: dict[type[Request], UserRate] = {
            ChatTyping: signals,
            ChatRead: signals,
            PresenceGet: signals,
            Subscribe: UserRate(settings.rate_subscribes_per_minute, "too many subscriptions in a minute"),
        }

    def count_frame(self, request: Request, caller: Caller, now_ms: int) -> None:
        """Count a frame of a socket, if its type has a rate. Raises RATE_LIMITED. HOT: one look-up for a message."""
        rate = self._by_frame.get(type(request))
        if rate is not None:
            rate.count(caller, now_ms)
