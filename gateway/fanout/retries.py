"""Requests that are repeated until they succeed, since lossless items depend on their answers."""

import asyncio
from collections.abc import Awaitable, Callable

from shared.backoff import Backoff
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

ATTEMPTS_AT_ONCE = 200
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
REFUSALS_MAX = 5  # in a row: then a refusal is final
OVERLOADED = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMITED})


def _always() -> bool:
    """Return True: the request is always wanted."""
    return True


class Retries:
    """Repeats requests with backoff. At most 200 are in flight at a time; the others wait."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(ATTEMPTS_AT_ONCE)

    async def run(self, attempt: Callable[[], Awaitable[object]], is_wanted: Callable[[], bool] = _always) -> bool:
        """Repeat `attempt` until it succeeds or is no longer wanted.

        Return True in both cases, and False after five refusals in a row.
        """
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        refusals = 0
        while is_wanted():
            try:
                async with self._slots:
                    await attempt()
                return True
            except (Unavailable, Refusal) as error:
                is_refusal = isinstance(error, Refusal) and error.code not in OVERLOADED
                refusals = refusals + 1 if is_refusal else 0
                if refusals == REFUSALS_MAX:
                    log.error("request_refused_repeatedly", reason=str(error))
                    return False
                pause_s = backoff.next_s()
                log.warning("request_retried", reason=str(error), retry_in_s=pause_s)
            await asyncio.sleep(pause_s)
        return True
