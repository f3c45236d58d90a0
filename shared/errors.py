"""The errors of this project. A foreign exception is translated into one of them once, where it enters.

RealtimeError
├── Refusal           the answer to the caller: an error code, a message, details
├── Unavailable       a broker, database or peer is unreachable or past its deadline; a retry may succeed
├── Malformed         bytes that are invalid for their queue or socket
├── WriteConflict     the database has changed since it was read; read and decide again
│   └── StaleOwner    another owner has a newer term, or its write has taken the place of this one
├── SettingsInvalid   the process cannot start; names every wrong setting
└── DatabaseTooNew    the process cannot start; a newer release has written the database

Six subclasses are defined elsewhere: `chat_service.storage.log_store.LogConflict` and its subclass `UnknownOutcome`,
`chat_service.storage.documents.NewerDocument`, `shared.protocol.client_frames.FrameRefused`,
`gateway.admission.refused.Refused` and `gateway.live.frame_reader.ProtocolViolation`.
"""

import random
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class ErrorCode(StrEnum):
    """The codes of WebSocket errors and REST failures."""

    BAD_FRAME = "BAD_FRAME"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    VALIDATION = "VALIDATION"
    UNAUTHORIZED = "UNAUTHORIZED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a code, not a secret
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    EDIT_WINDOW = "EDIT_WINDOW"
    RATE_LIMITED = "RATE_LIMITED"
    TOO_LARGE = "TOO_LARGE"
    TOO_MANY_SUBSCRIPTIONS = "TOO_MANY_SUBSCRIPTIONS"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.BAD_FRAME: 400,
    ErrorCode.UNKNOWN_TYPE: 400,
    ErrorCode.VALIDATION: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.TOKEN_EXPIRED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.EDIT_WINDOW: 403,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.TOO_MANY_SUBSCRIPTIONS: 400,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}

RETRY_AFTER_MIN_MS, RETRY_AFTER_MAX_MS = 500, 1_500  # after a refusal by load shedding
RETRYABLE = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL})


class Detail(msgspec.Struct, frozen=True):
    """One wrong field and the reason, as `error.details` shows it."""

    field: str
    reason: str


class RealtimeError(Exception):
    """The root of this project's errors."""


class Refusal(RealtimeError):
    """A refusal that is passed to the caller unchanged."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        details: Sequence[Detail] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)
        self.retry_after_ms = retry_after_ms

    @classmethod
    def invalid(cls, field: str, reason: str) -> "Refusal":
        """Return a VALIDATION refusal of one field."""
        return cls(ErrorCode.VALIDATION, f"{field}: {reason}", details=[Detail(field, reason)])

    @classmethod
    def not_found(cls, what: str) -> "Refusal":
        """Return a NOT_FOUND refusal: the object does not exist, or the caller may not know that it does."""
        return cls(ErrorCode.NOT_FOUND, f"no such {what}")

    @classmethod
    def overload(cls, code: ErrorCode, message: str) -> "Refusal":
        """Return a refusal by load shedding, with a random retry time of 0.5 to 1.5 s.

        With a fixed time the refused callers would return together.
        """
        retry_after_ms = random.randint(RETRY_AFTER_MIN_MS, RETRY_AFTER_MAX_MS)  # noqa: S311 - not a secret
        return cls(code, message, retry_after_ms=retry_after_ms)


class Unavailable(RealtimeError):
    """A broker, database or peer is unreachable or past its deadline. The attempt may have taken effect."""


class Malformed(RealtimeError):
    """Bytes that are invalid for their queue or socket. The message states the reason."""


class WriteConflict(RealtimeError):
    """The database has changed since it was read, by another writer or an earlier attempt. Read and decide again."""


class StaleOwner(WriteConflict):
    """Another owner has a newer term (the fencing token), or another term has already taken the place of this write."""


class SettingsInvalid(RealtimeError):
    """One or more settings are wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class DatabaseTooNew(RealtimeError):
    """A newer release has written data that this one cannot read. The message names both versions."""
