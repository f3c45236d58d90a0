"""Policy for the delay before a reconnect. Pure."""

from collections.abc import Callable

from realtime_client.options import ClientOptions
from realtime_client.protocol import ABNORMAL_CLOSURE, ServerClose

ABUSE_DELAY_S = 10.0

# Closes of a server that stops. The delay that it announced in `server:drain` applies to them alone.
_RESTARTING = frozenset({None, ABNORMAL_CLOSURE, ServerClose.GOING_AWAY, ServerClose.RESTARTING})


class ReconnectPolicy:
    """Exponential backoff with jitter; instructions of the server take precedence."""

    def __init__(self, options: ClientOptions, chance: Callable[[], float]) -> None:
        self._options = options
        self._chance = chance
        self._attempt = 0
        self._drain_s: float | None = None

    def reset(self) -> None:
        """Start the next series of attempts with the shortest delay."""
        self._attempt = 0

    def connecting(self) -> None:
        """Discard the drain delay of the previous connection."""
        self._drain_s = None

    def draining(self, delay_s: float) -> None:
        """Store the delay that the server announced before it stops."""
        self._drain_s = delay_s

    def delay_s(self, code: int | None, retry_after_s: float) -> float:
        """Return the delay after a close with `code`; `retry_after_s` is the Retry-After of a refused upgrade."""
        if self._drain_s is not None and code in _RESTARTING:
            return self._drain_s
        minimum_s_by_code: dict[int | None, float] = {
            ServerClose.RATE_ABUSE: ABUSE_DELAY_S,
            ServerClose.OVERLOADED: self._options.backoff_first_s,
        }
        return max(minimum_s_by_code.get(code, 0.0), retry_after_s) + self.backoff_s()

    def backoff_s(self) -> float:
        """Return the next backoff delay. It doubles with each attempt.

        The first delay after a stable connection is random between zero and `backoff_first_s`, so that clients of one
        lost server do not return all at once.
        """
        ceiling_s = min(self._options.backoff_first_s * 2.0 ** min(self._attempt, 60), self._options.backoff_max_s)
        floor_s = 0.0 if self._attempt == 0 else ceiling_s / 2
        self._attempt += 1
        return floor_s + self._chance() * (ceiling_s - floor_s)
