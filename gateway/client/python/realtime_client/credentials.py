"""Token of a client: expiry, renewal and refusals. Pure.

Times are seconds of one monotonic clock.
"""

import math

from realtime_client.actions import TokenReason
from realtime_client.protocol import Welcome

REFUSALS_MAX = 3
RENEW_BEFORE_S = 60.0


class Credentials:
    """Current token of a client. At most one fetch is in progress."""

    def __init__(self, token: str | None, *, can_refresh: bool) -> None:
        self.token = token
        self.renew_at_s = math.inf
        self._can_refresh = can_refresh
        self._expires_at_s = math.inf
        self._is_fetching = False
        self._refusals = 0

    @property
    def fetch_reason(self) -> TokenReason:
        """Return the reason for a fetch before a connection attempt."""
        return TokenReason.REFUSED if self._refusals else TokenReason.CONNECT

    def is_usable(self, now_s: float) -> bool:
        """Return whether to connect with the current token. A fixed token is used even if it has expired."""
        return self.token is not None and not (self._can_refresh and self._expires_at_s <= now_s)

    def begin_fetch(self) -> bool:
        """Return whether the caller must fetch a token; False while a fetch is in progress."""
        must_fetch = not self._is_fetching
        self._is_fetching = True
        return must_fetch

    def abandon_fetch(self) -> None:
        """Stop waiting for the fetch in progress; it may hang."""
        self._is_fetching = False

    def fetched(self, token: str) -> None:
        """Replace the token."""
        self.token = token
        self.renew_at_s = self._expires_at_s = math.inf
        self._is_fetching = False

    def retry_renewal(self, at_s: float) -> None:
        """Schedule another renewal after a failed one."""
        self.renew_at_s = at_s

    def cancel_renewal(self) -> None:
        """Schedule no renewal until the token's fetch has ended."""
        self.renew_at_s = math.inf

    def accepted(self, welcome: Welcome, now_s: float) -> None:
        """Schedule the renewal of an accepted token: 60 s before it expires.

        If it lives for less than 240 s, renew it when a quarter of its lifetime is left.
        """
        lifetime_s = welcome.token_lifetime_s
        renew_in_s = lifetime_s - min(RENEW_BEFORE_S, lifetime_s / 4)
        self.renew_at_s = now_s + renew_in_s if self._can_refresh and renew_in_s >= 0 else math.inf
        self._expires_at_s = now_s + lifetime_s
        self._refusals = 0

    def refused(self) -> bool:
        """Drop a token that the server refused. Return whether to try another one, three in a row at most."""
        self._refusals += 1
        if not self._can_refresh or self._refusals > REFUSALS_MAX:
            return False
        self.token = None
        return True

    def reset_refusals(self) -> None:
        """Reset the count of refusals, because the application starts a new attempt."""
        self._refusals = 0

    def disconnected(self) -> None:
        """Cancel the renewal; the next connection schedules its own."""
        self.renew_at_s = math.inf
