"""When the issuer's keys are fetched. Pure: the clock comes in.

Every `refresh_s`; after a failure again after 1 s, 2 s, 4 s … 60 s; and at once for a key that is not known, but never
twice within COOLDOWN_S: tokens that name made-up keys do not become requests to the issuer.
"""

COOLDOWN_S = 5.0
FETCH_TIMEOUT_S = 3.0
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0


class JwksSchedule:
    """Decides; `gateway.auth.jwks` fetches. Times are seconds of one monotonic clock."""

    def __init__(self, refresh_s: float) -> None:
        self._refresh_s = refresh_s
        self._begun_at_s: float | None = None
        self._failures = 0
        self._is_running = False
        self.has_succeeded = False

    @property
    def has_failed(self) -> bool:
        """Whether the last fetch failed, or none has ended yet."""
        return self._failures > 0 or not self.has_succeeded

    def due_in_s(self, now_s: float) -> float:
        """How long to wait for the next fetch that nobody asked for."""
        if self._begun_at_s is None:
            return 0.0
        pause_s = self._refresh_s
        if self._failures:
            pause_s = min(pause_s, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 16), RETRY_MAX_S)
        return max(self._begun_at_s + pause_s - now_s, 0.0)

    def may_fetch(self, now_s: float) -> bool:
        """Whether somebody who lacks a key may have it fetched, or wait for the fetch that is under way."""
        return self._is_running or self._begun_at_s is None or now_s - self._begun_at_s >= COOLDOWN_S

    def begin(self, now_s: float) -> None:
        """A fetch begins."""
        self._begun_at_s = now_s
        self._is_running = True

    def succeeded(self) -> None:
        """It brought keys."""
        self._is_running = False
        self._failures = 0
        self.has_succeeded = True

    def failed(self) -> None:
        """It did not."""
        self._is_running = False
        self._failures += 1
