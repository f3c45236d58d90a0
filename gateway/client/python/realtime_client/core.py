"""Core of one client: subscriptions, requests and deduplication across connections. Pure.

Frames, times (seconds of one monotonic clock) and random numbers are inputs; actions are the output, and `shell`
carries them out.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from realtime_client.actions import Action, Emit, Fail, Resolve
from realtime_client.credentials import Credentials
from realtime_client.cursor import Missed
from realtime_client.interest import Interest
from realtime_client.link import Link
from realtime_client.options import ClientOptions
from realtime_client.protocol import (
    SUBSCRIPTIONS,
    Ack,
    Frame,
    Rejection,
    RoomSubscription,
    Subscription,
    fields_of,
    parse_frame,
    size_bytes,
)
from realtime_client.reconnect import ReconnectPolicy
from realtime_client.requests import Request, RequestFailed, Requests
from realtime_client.status import State, Stats

RETRY_MAX_S = 10.0
PAUSE_MAX_S = 60.0  # the window of the limits on messages and on changes; a longer wait belongs to another limit
ID_MAX_BYTES = 32  # bound on the encoded `"id":…,`


class Core:
    """Decisions of one client. Each request has an id, which Resolve and Fail repeat."""

    def __init__(
        self,
        options: ClientOptions,
        chance: Callable[[], float],
        *,
        token: str | None = None,
        can_refresh: bool = False,
    ) -> None:
        self._options = options
        self._actions: list[Action] = []
        self._interest = Interest()
        self._requests = Requests(options.pending_max)
        credentials = Credentials(token, can_refresh=can_refresh)
        self.link = Link(options, credentials, ReconnectPolicy(options, chance), self._actions.append, self)

    @property
    def state(self) -> State:
        """Return the state of the link."""
        return self.link.state

    @property
    def stats(self) -> Stats:
        """Return the counters since the client was created."""
        return self.link.stats

    def take(self) -> list[Action]:
        """Return the actions since the last call, in order."""
        actions = self._actions[:]
        self._actions.clear()
        return actions

    def deadline_s(self, now_s: float) -> float:
        """Return the time by which the shell must call `tick`."""
        connection = self.link.connection if self.link.is_open else 0
        return min(self.link.deadline_s, self._requests.next_s(connection, now_s))

    # Calls of the application ----------------------------------------------------------------------------------------

    def subscribe(self, target: Subscription, now_s: float) -> int:
        """Subscribe on this connection and on every later one."""
        if self._rejection({}) is None:
            self._interest.add(target)
        return self._ask({}, now_s, target=target)

    def unsubscribe(self, target: Subscription, now_s: float) -> int:
        """Unsubscribe. Without a connection this settles at once, since no later connection restores the channel."""
        self._interest.remove(target)
        for request in self._requests.all():
            if request.target is not None and self._interest.remaining(request.target) is None:
                self._fail(request, RequestFailed("UNSUBSCRIBED", "unsubscribed before the server answered"))
        if self.link.is_auth_sent:
            self._interest.unsubscribing(target)
            return self._ask(_frame_of("unsubscribe", target), now_s)
        id_ = self._requests.new_id()
        self._actions.append(Resolve(id_, fields_of(target)))
        return id_

    def send_message(self, frame: dict[str, Any], ordering_key: str, now_s: float) -> int:
        """Send a message or a change of one, in order by `ordering_key`, and resend it until it is acknowledged."""
        return self._ask(frame, now_s, ordering_key=ordering_key, deadline_s=now_s + self._options.request_timeout_s)

    def request(self, frame: dict[str, Any], now_s: float) -> int:
        """Send any other frame that the server answers."""
        return self._ask(frame, now_s, deadline_s=now_s + self._options.request_timeout_s)

    def send_now(self, frame: dict[str, Any]) -> bool:
        """Send a frame that loses its value with time. Return False, without sending it, if there is no connection."""
        if self.link.is_open:
            self.link.send(frame)
        return self.link.is_open

    # Reports of the shell --------------------------------------------------------------------------------------------

    def received(self, connection: int, text: str, now_s: float) -> None:
        """Process a text frame."""
        if not self.link.is_current(connection):
            return
        frame = parse_frame(text)
        self.link.frame_received(frame, now_s)
        if frame is not None:
            self._process(frame, now_s)
        self._send_due(now_s)

    def tick(self, now_s: float) -> None:
        """Act on deadlines that have passed."""
        for request in self._requests.expired(now_s):
            self._fail(request, RequestFailed("TIMEOUT", "the server did not answer in time", retryable=True))
        self.link.tick(now_s)
        self._send_due(now_s)

    # Calls of the link -----------------------------------------------------------------------------------------------

    def restore(self) -> Sequence[dict[str, Any]]:
        """Return the subscribe frames for a new connection: pending requests first, then confirmed subscriptions."""
        pending = [request for request in self._requests.all() if request.target is not None]
        targets = self._interest.targets_except([request.target for request in pending if request.target is not None])
        restored = [self._requests.add({}, target=target, is_internal=True) for target in targets]
        return [self._frame_to_send(request) for request in [*pending, *restored]]

    def disconnected(self) -> None:
        """Drop internal requests and settle pending unsubscriptions; both belonged to the lost connection."""
        self._interest.disconnected()
        for request in self._requests.all():
            if request.is_internal:
                self._requests.remove(request)
            elif request.frame.get("type") == "unsubscribe":
                self._requests.remove(request)
                fields = {name: value for name, value in request.frame.items() if name not in ("type", "id")}
                self._actions.append(Resolve(request.id, fields))

    def stopped(self, code: int, reason: str) -> None:
        """Fail all requests with CLOSED."""
        for request in self._requests.all():
            self._fail(request, RequestFailed("CLOSED", f"the client is closed: {reason}", close_code=code))

    # Requests --------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        frame: dict[str, Any],
        now_s: float,
        *,
        ordering_key: str | None = None,
        target: Subscription | None = None,
        deadline_s: float = math.inf,
    ) -> int:
        if (error := self._rejection(frame)) is not None:
            id_ = self._requests.new_id()
            self._actions.append(Fail(id_, error))
            return id_
        request = self._requests.add(frame, ordering_key=ordering_key, target=target, deadline_s=deadline_s)
        self._send_due(now_s)
        return request.id

    def _rejection(self, frame: dict[str, Any]) -> RequestFailed | None:
        if self.state is State.CLOSED:
            return RequestFailed("CLOSED", "the client is closed")
        if self._requests.is_full:
            message = f"{self._options.pending_max} requests are already pending"
            return RequestFailed("QUEUE_FULL", message, retryable=True)
        if size_bytes(frame) + ID_MAX_BYTES > self.link.max_message_bytes:
            return RequestFailed("TOO_LARGE", f"larger than {self.link.max_message_bytes} bytes")
        return None

    def _send_due(self, now_s: float) -> None:
        if self.link.is_open:
            for request in self._requests.due(self.link.connection, now_s):
                self.link.ask(self._frame_to_send(request), now_s)

    def _frame_to_send(self, request: Request) -> dict[str, Any]:
        """Mark a request as sent and return its frame."""
        request.sent_on = self.link.connection
        request.attempts += 1
        if request.target is None:
            return request.frame
        target = self._interest.remaining(request.target) or request.target
        request.resumes = self._interest.resume_fields(target)
        return _frame_of("subscribe", target) | {"id": request.id} | request.resumes

    # Frames ----------------------------------------------------------------------------------------------------------

    def _process(self, frame: Frame, now_s: float) -> None:
        fresh = self._interest.accept(frame.type, frame.data)
        if fresh is None:
            self.stats.repeats += 1
            return
        self._report_missed(fresh.missed)
        if frame.type == "unsubscribed":
            target: Subscription = msgspec.convert(frame.data, SUBSCRIPTIONS[frame.data["channel"]])
            self._interest.unsubscribed(target)
            if frame.id is None:  # the server ended the subscription by itself
                self._interest.remove(target)
        elif frame.type == "chatroom:deleted":
            self._interest.remove(msgspec.convert(frame.data, RoomSubscription))
        self._actions.append(Emit(frame.type, frame.data))
        request = self._requests.get(frame.id)
        if request is not None and frame.type == "error":
            self._rejected(request, msgspec.convert(frame.data, Rejection), now_s)
        elif request is not None:
            self._answered(request, frame)

    def _answered(self, request: Request, frame: Frame) -> None:
        self._requests.remove(request)
        if request.target is not None:
            self._report_missed(self._interest.subscribed(request.target, request.resumes, frame.data))
        elif frame.type == "chat:ack" and request.frame["type"] == "chat:direct":
            self._direct_acked(request, msgspec.convert(frame.data, Ack))
        if not request.is_internal:
            self._actions.append(Resolve(request.id, frame.data))

    def _direct_acked(self, request: Request, ack: Ack) -> None:
        """After a resent message to an unknown room, subscribe from just before it, so that it is replayed.

        The message may have been delivered to an earlier connection.
        """
        if self._interest.acked(ack) and request.attempts > 1:
            self._requests.add({}, target=RoomSubscription(ack.chatroom_id), is_internal=True)

    def _rejected(self, request: Request, error: Rejection, now_s: float) -> None:
        delay_s = min(self._options.backoff_first_s * 2.0 ** min(request.attempts, 60), RETRY_MAX_S)
        if error.retry_after_ms is not None:
            delay_s = error.retry_after_ms / 1000
        is_too_late = error.retry_after_ms is not None and now_s + delay_s >= request.deadline_s
        if error.retryable and not is_too_late:
            pauses_kind = error.code == "RATE_LIMITED" and delay_s <= PAUSE_MAX_S
            self._requests.retry(request, now_s + delay_s, pauses_kind=pauses_kind)
            return
        if request.target is not None:
            self._interest.rejected(request.target)
            if request.is_internal:
                lost = fields_of(request.target) | {"code": error.code, "message": error.message}
                self._actions.append(Emit("subscription:lost", lost))
        failed = RequestFailed(
            error.code,
            error.message,
            retryable=error.retryable,
            retry_after_ms=error.retry_after_ms,
            details=error.details,
        )
        self._fail(request, failed)

    def _fail(self, request: Request, error: RequestFailed) -> None:
        self._requests.remove(request)
        if not request.is_internal:
            self._actions.append(Fail(request.id, error))

    def _report_missed(self, missed: Missed | None) -> None:
        if missed is not None:
            self._actions.append(Emit("missed", msgspec.to_builtins(missed)))


def _frame_of(type_: str, target: Subscription) -> dict[str, Any]:
    return {"type": type_} | fields_of(target)
