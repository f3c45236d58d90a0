"""Refusals of connections and upgrades. Pure: injected randomness.

A refusal carries a randomised retry delay, so that refused clients do not return at the same moment.
"""

import random

from shared.errors import ErrorCode, Refusal

FULL_RETRY_MS = (2_000, 10_000)
BUSY_RETRY_MS = (1_000, 6_000)
LEAVING_RETRY_MS = (1_000, 2_000)


class Refused(Refusal):
    """A refused connection or upgrade. `reason` is a metric label."""

    def __init__(self, reason: str, code: ErrorCode, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(code, message, retry_after_ms=retry_after_ms)
        self.reason = reason


def refused_for_now(reason: str, message: str, between_ms: tuple[int, int], chance: random.Random) -> Refused:
    """Return a refusal that invites the client to try again."""
    code = ErrorCode.RATE_LIMITED if reason == "address" else ErrorCode.UNAVAILABLE
    return Refused(reason, code, message, chance.randint(*between_ms))
