"""What was asked of the server and is not answered yet: in order, resent until it is, each with a deadline. Pure.

Times are seconds of one monotonic clock.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from realtime_client.protocol import FieldError, Subscription


class RequestFailed(Exception):
    """What was asked of the server has failed. `retryable`: asking again may work.

    `code` is one of the protocol, or one of the client's own: CLOSED (the client was closed, or may not connect any
    more: then `close_code` says why), TIMEOUT (no answer in time; it may have taken effect: repeat it with the same
    client_message_id), QUEUE_FULL, UNSUBSCRIBED.
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


@dataclass(slots=True, eq=False)
class Request:
    """One request. Of those with the same `lane` only one is under way, so that they are carried out in order.

    `target` is that of a subscription, whose frame is made when it is sent; `is_own`: nobody waits for the answer.
    """

    id: int
    frame: dict[str, Any]
    lane: str | None = None
    target: Subscription | None = None
    deadline_s: float = math.inf
    is_own: bool = False
    since: int | None = field(default=None, init=False)  # what was sent with the subscribe frame
    sent_on: int = field(default=0, init=False)  # the number of the connection; 0 is none
    tries: int = field(default=0, init=False)
    not_before_s: float = field(default=-math.inf, init=False)


class Requests:
    """At most `max_items` of the application's at a time: who adds looks at `is_full` first."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._pending: dict[int, Request] = {}  # in the order asked
        self._ids = itertools.count(1)
        self._paused_until_s = -math.inf  # messages; the server said when

    @property
    def is_full(self) -> bool:
        """Whether one more is too many."""
        return len(self._pending) >= self._max_items

    def new_id(self) -> int:
        """An id for what is not kept here."""
        return next(self._ids)

    def add(
        self,
        frame: dict[str, Any],
        *,
        lane: str | None = None,
        target: Subscription | None = None,
        deadline_s: float = math.inf,
        is_own: bool = False,
    ) -> Request:
        """Keep a request until it is removed."""
        id_ = self.new_id()
        request = Request(id_, frame | {"id": id_}, lane, target, deadline_s, is_own)
        self._pending[id_] = request
        return request

    def get(self, id_: object) -> Request | None:
        """The request that an answer is for."""
        return self._pending.get(id_) if isinstance(id_, int) else None

    def remove(self, request: Request) -> None:
        """It is answered, or nobody waits for it any more."""
        self._pending.pop(request.id, None)

    def all(self) -> list[Request]:
        """All of them, in the order asked."""
        return list(self._pending.values())

    def due(self, connection: int, now_s: float) -> list[Request]:
        """What may be sent now on this connection, in order."""
        busy: set[str] = set()
        found: list[Request] = []
        for request in self._pending.values():
            if request.lane is not None:
                if request.lane in busy:
                    continue
                busy.add(request.lane)
            if request.sent_on != connection and self._may_go_at_s(request) <= now_s:
                found.append(request)
        return found

    def next_s(self, connection: int, now_s: float) -> float:
        """When, after `now_s`, time alone brings something; `connection` is 0 when nothing can be sent."""
        next_s = math.inf
        for request in self._pending.values():
            next_s = min(next_s, request.deadline_s)
            if connection and request.sent_on != connection and self._may_go_at_s(request) > now_s:
                next_s = min(next_s, self._may_go_at_s(request))
        return next_s

    def expired(self, now_s: float) -> list[Request]:
        """What has waited past its deadline."""
        return [request for request in self._pending.values() if request.deadline_s <= now_s]

    def retry(self, request: Request, at_s: float, *, limits_messages: bool) -> None:
        """Send it once more, not before `at_s`; so for all messages when the server limits them."""
        request.sent_on = 0
        if limits_messages and request.lane is not None:
            self._paused_until_s = max(self._paused_until_s, at_s)
        else:
            request.not_before_s = at_s

    def _may_go_at_s(self, request: Request) -> float:
        if request.lane is None:
            return request.not_before_s
        return max(request.not_before_s, self._paused_until_s)
