"""The schedule for fetching an issuer's keys. Pure: the clock is passed in.

A fetch is due every `refresh_s`, after a failure with exponential backoff (1 s, 2 s, 4 s … 60 s), and at once for an
unknown key. An unknown key starts a fetch only if the last one began at least COOLDOWN_S ago, so that tokens with
made-up key ids cannot flood the issuer.
"""

COOLDOWN_S = 5.0
FETCH_TIMEOUT_S = 3.0
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0


class JwksSchedule:
    """Decides when to fetch; `gateway.auth.jwks` fetches. All times are seconds of one monotonic clock."""

    def __init__(self, refresh_s: float) -> None:
        self._refresh_s = refresh_s
        self._begun_at_s: float | None = None
        self._failures = 0
        self._is_running = False
        self.has_succeeded = False

    @property
    def has_failed(self) -> bool:
        """Return whether the last fetch failed or none has ended yet."""
        return self._failures > 0 or not self.has_succeeded

    def due_in_s(self, now_s: float) -> float:
        """Return the time until the next scheduled fetch."""
        if self._begun_at_s is None:
            return 0.0
        pause_s = self._refresh_s
        if self._failures:
            pause_s = min(pause_s, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 16), RETRY_MAX_S)
        return max(self._begun_at_s + pause_s - now_s, 0.0)

    def may_fetch(self, now_s: float) -> bool:
        """Return whether a request for an unknown key may start a fetch or join the running one."""
        return self._is_running or self._begun_at_s is None or now_s - self._begun_at_s >= COOLDOWN_S

    def begin(self, now_s: float) -> None:
        """Record that a fetch has started."""
        self._begun_at_s = now_s
        self._is_running = True

    def succeeded(self) -> None:
        """Record that the fetch returned keys."""
        self._is_running = False
        self._failures = 0
        self.has_succeeded = True

    def failed(self) -> None:
        """Record that the fetch failed."""
        self._is_running = False
        self._failures += 1
