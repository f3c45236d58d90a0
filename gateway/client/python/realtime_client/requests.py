"""Unanswered requests: ordered by key, resent until answered. Pure.

Messages and other requests have a deadline, subscribes and unsubscribes have none. Times are seconds of one monotonic
clock.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from realtime_client.protocol import FieldError, Subscription


class RequestFailed(Exception):
    """Failure of a request. `retryable` states whether another attempt can succeed.

    `code` is a code of the protocol, or one that the client adds: CLOSED (the client is closed; `close_code` states the
    reason if the server refuses further connections), TIMEOUT (no answer in time; the request may have taken effect, so
    repeat it with the same client_message_id), QUEUE_FULL, UNSUBSCRIBED.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        details: Sequence[FieldError] = (),
        close_code: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.details = tuple(details)
        self.close_code = close_code


class RateKind(StrEnum):
    """The requests that the server counts towards one rate: new messages, or changes of stored ones."""

    MESSAGES = "messages"
    CHANGES = "changes"


_MESSAGES = frozenset({"chat:send", "chat:direct"})


@dataclass(slots=True, eq=False)
class Request:
    """One unanswered request. At most one request of each `ordering_key` is in flight, so they stay in order.

    While a rate limit pauses one kind (messages or changes), requests of the other kind do not wait: they overtake the
    paused ones.

    `target` is the subscription of a subscribe request, whose frame is built when it is sent. `is_internal` marks a
    request of the client itself: no caller waits for the answer.
    """

    id: int
    frame: dict[str, Any]
    ordering_key: str | None = None
    target: Subscription | None = None
    deadline_s: float = math.inf
    is_internal: bool = False
    resumes: dict[str, int] = field(default_factory=dict, init=False)  # the position sent in the subscribe frame
    sent_on: int = field(default=0, init=False)  # connection number; 0: unsent
    attempts: int = field(default=0, init=False)
    not_before_s: float = field(default=-math.inf, init=False)

    @property
    def rate_kind(self) -> RateKind | None:
        """Return the rate that the server counts the request towards; None for a request without an ordering key."""
        if self.ordering_key is None:
            return None
        return RateKind.MESSAGES if self.frame.get("type") in _MESSAGES else RateKind.CHANGES


class Requests:
    """Unanswered requests in the order of the calls, at most `max_items`; callers check `is_full` before `add`."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._pending: dict[int, Request] = {}
        self._ids = itertools.count(1)
        self._paused_until_s: dict[RateKind, float] = {}

    @property
    def is_full(self) -> bool:
        """Return whether the bound is reached."""
        return len(self._pending) >= self._max_items

    def new_id(self) -> int:
        """Return an id for a request that is not stored here."""
        return next(self._ids)

    def add(
        self,
        frame: dict[str, Any],
        *,
        ordering_key: str | None = None,
        target: Subscription | None = None,
        deadline_s: float = math.inf,
        is_internal: bool = False,
    ) -> Request:
        """Store a request until `remove`, and return it."""
        id_ = self.new_id()
        request = Request(id_, frame | {"id": id_}, ordering_key, target, deadline_s, is_internal)
        self._pending[id_] = request
        return request

    def get(self, id_: object) -> Request | None:
        """Return the request that an answer with this id belongs to, or None."""
        return self._pending.get(id_) if isinstance(id_, int) else None

    def remove(self, request: Request) -> None:
        """Drop a request that is answered or no longer awaited."""
        self._pending.pop(request.id, None)

    def all(self) -> list[Request]:
        """Return all requests in the order of the calls."""
        return list(self._pending.values())

    def due(self, connection: int, now_s: float) -> list[Request]:
        """Return the requests to send on `connection` now, in order."""
        busy: set[tuple[str, RateKind]] = set()
        due: list[Request] = []
        for request in self._pending.values():
            if request.ordering_key is not None and request.rate_kind is not None:
                if (request.ordering_key, request.rate_kind) in busy:
                    continue
                held_up = [request.rate_kind] if self._paused_s(request) > now_s else RateKind
                busy |= {(request.ordering_key, kind) for kind in held_up}
            if request.sent_on != connection and self._sendable_at_s(request) <= now_s:
                due.append(request)
        return due

    def next_s(self, connection: int, now_s: float) -> float:
        """Return the next time after `now_s` at which a request expires or becomes sendable.

        `connection` is 0 while no frame can be sent.
        """
        next_s = math.inf
        for request in self._pending.values():
            next_s = min(next_s, request.deadline_s)
            if connection and request.sent_on != connection and self._sendable_at_s(request) > now_s:
                next_s = min(next_s, self._sendable_at_s(request))
        return next_s

    def expired(self, now_s: float) -> list[Request]:
        """Return the requests whose deadline has passed."""
        return [request for request in self._pending.values() if request.deadline_s <= now_s]

    def retry(self, request: Request, at_s: float, *, pauses_kind: bool) -> None:
        """Send a request again, not before `at_s`. With `pauses_kind`, all requests of its kind wait until then."""
        request.sent_on = 0
        if pauses_kind and (kind := request.rate_kind) is not None:
            self._paused_until_s[kind] = max(self._paused_until_s.get(kind, at_s), at_s)
        else:
            request.not_before_s = at_s

    def _paused_s(self, request: Request) -> float:
        kind = request.rate_kind
        return -math.inf if kind is None else self._paused_until_s.get(kind, -math.inf)

    def _sendable_at_s(self, request: Request) -> float:
        return max(request.not_before_s, self._paused_s(request))
