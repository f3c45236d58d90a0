"""One client's conversation with the server, whatever happens to the link: what it listens to, what it asked, what of
all that comes back is new. Pure: frames, times and chance come in, actions come out; `connection` carries them out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from realtime_client.interest import Interest, Missed
from realtime_client.link import ClientOptions, Emit, Link, LinkAction, State, Stats, size_of
from realtime_client.protocol import (
    SUBSCRIPTIONS,
    Ack,
    Frame,
    Rejection,
    RoomSubscription,
    Subscription,
    fields_of,
    parse_frame,
)
from realtime_client.requests import Request, RequestFailed, Requests

RETRY_MAX_S = 10.0
ID_BYTES = 32  # more than `"id":…,` takes


@dataclass(frozen=True, slots=True)
class Settle:
    """A request has been answered."""

    id: int
    data: Any


@dataclass(frozen=True, slots=True)
class Fail:
    """A request has failed."""

    id: int
    error: RequestFailed


Action = LinkAction | Settle | Fail


class Core:
    """See the module's docstring. Requests are named by ids, which come back in Settle and Fail."""

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
        self.link = Link(options, self._actions.append, self, token=token, can_refresh=can_refresh, chance=chance)

    @property
    def state(self) -> State:
        """Of the link."""
        return self.link.state

    @property
    def stats(self) -> Stats:
        """Since the client was made."""
        return self.link.stats

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions = self._actions[:]
        self._actions.clear()
        return actions

    def deadline_s(self, now_s: float) -> float:
        """When `tick` is to be called, at the latest."""
        connection = self.link.connection if self.link.is_open else 0
        return min(self.link.deadline_s, self._requests.next_s(connection, now_s))

    # What the application wants --------------------------------------------------------------------------------------

    def subscribe(self, target: Subscription, now_s: float) -> int:
        """Subscribe, now and on every connection to come."""
        if self._why_not({}) is None:
            self._interest.want(target)
        return self._ask({}, now_s, target=target)

    def unsubscribe(self, target: Subscription, now_s: float) -> int:
        """Settles at once if there is no connection: a new one would not have it."""
        self._interest.forget(target)
        for request in self._requests.all():
            if request.target is not None and self._interest.remaining(request.target) is None:
                self._fail(request, RequestFailed("UNSUBSCRIBED", "unsubscribed before it was answered"))
        if self.link.is_auth_sent:
            self._interest.leave(target)
            return self._ask(_frame_of("unsubscribe", target), now_s)
        id_ = self._requests.new_id()
        self._actions.append(Settle(id_, fields_of(target)))
        return id_

    def send_message(self, frame: dict[str, Any], lane: str, now_s: float) -> int:
        """A chat:send or chat:direct: in order with the others of its `lane`, resent until it is acked."""
        return self._ask(frame, now_s, lane=lane, deadline_s=now_s + self._options.request_timeout_s)

    def request(self, frame: dict[str, Any], now_s: float) -> int:
        """Anything else that is answered."""
        return self._ask(frame, now_s, deadline_s=now_s + self._options.request_timeout_s)

    def send_now(self, frame: dict[str, Any]) -> bool:
        """A frame of worth only now: False, and not sent, if there is no connection."""
        if self.link.is_open:
            self.link.send(frame)
        return self.link.is_open

    # What the shell reports ------------------------------------------------------------------------------------------

    def received(self, connection: int, text: str, now_s: float) -> None:
        """A text frame has come."""
        if not self.link.is_in_use(connection):
            return
        frame = parse_frame(text)
        self.link.heard(frame, now_s)
        if frame is not None:
            self._take(frame, now_s)
        self._pump(now_s)

    def tick(self, now_s: float) -> None:
        """What time alone brings."""
        for request in self._requests.expired(now_s):
            self._fail(request, RequestFailed("TIMEOUT", "not answered in time", retryable=True))
        self.link.tick(now_s)
        self._pump(now_s)

    # The link's peer -------------------------------------------------------------------------------------------------

    def restore(self) -> Sequence[dict[str, Any]]:
        """See `Peer`."""
        asked = [request for request in self._requests.all() if request.target is not None]
        targets = self._interest.targets_but([request.target for request in asked if request.target is not None])
        own = [self._requests.add({}, target=target, is_own=True) for target in targets]
        return [self._sent(request) for request in [*asked, *own]]

    def lost(self) -> None:
        """A lost connection takes with it what was asked for its sake alone, and what was to be unsubscribed."""
        self._interest.disconnected()
        for request in self._requests.all():
            if request.is_own:
                self._requests.remove(request)
            elif request.frame.get("type") == "unsubscribe":
                self._requests.remove(request)
                fields = {name: value for name, value in request.frame.items() if name not in ("type", "id")}
                self._actions.append(Settle(request.id, fields))

    def stopped(self, code: int, reason: str) -> None:
        """See `Peer`."""
        for request in self._requests.all():
            self._fail(request, RequestFailed("CLOSED", f"the client is closed: {reason}", close_code=code))

    # Requests --------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        frame: dict[str, Any],
        now_s: float,
        *,
        lane: str | None = None,
        target: Subscription | None = None,
        deadline_s: float = math.inf,
    ) -> int:
        if (error := self._why_not(frame)) is not None:
            id_ = self._requests.new_id()
            self._actions.append(Fail(id_, error))
            return id_
        request = self._requests.add(frame, lane=lane, target=target, deadline_s=deadline_s)
        self._pump(now_s)
        return request.id

    def _why_not(self, frame: dict[str, Any]) -> RequestFailed | None:
        if self.state is State.CLOSED:
            return RequestFailed("CLOSED", "the client is closed")
        if self._requests.is_full:
            return RequestFailed("QUEUE_FULL", f"{self._options.pending_max} requests wait already", retryable=True)
        if size_of(frame) + ID_BYTES > self.link.max_message_bytes:
            return RequestFailed("TOO_LARGE", f"larger than {self.link.max_message_bytes} bytes")
        return None

    def _pump(self, now_s: float) -> None:
        """Send what waits."""
        if self.link.is_open:
            for request in self._requests.due(self.link.connection, now_s):
                self.link.ask(self._sent(request), now_s)

    def _sent(self, request: Request) -> dict[str, Any]:
        """The frame of a request that is being sent."""
        request.sent_on = self.link.connection
        request.tries += 1
        if request.target is None:
            return request.frame
        target = self._interest.remaining(request.target) or request.target
        request.since = self._interest.since(target)
        frame = _frame_of("subscribe", target) | {"id": request.id}
        return frame if request.since is None else frame | {"since": request.since}

    # Frames ----------------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame, now_s: float) -> None:
        fresh = self._interest.take(frame.type, frame.data)
        if fresh is None:
            self.stats.repeats += 1
            return
        self._tell_missed(fresh.missed)
        if frame.type == "unsubscribed":
            target: Subscription = msgspec.convert(frame.data, SUBSCRIPTIONS[frame.data["channel"]])
            self._interest.left(target)
            if frame.id is None:  # the server has ended it by itself
                self._interest.forget(target)
        elif frame.type == "chatroom:deleted":
            self._interest.forget(msgspec.convert(frame.data, RoomSubscription))
        self._actions.append(Emit(frame.type, frame.data))
        request = self._requests.get(frame.id)
        if request is not None and frame.type == "error":
            self._refused(request, msgspec.convert(frame.data, Rejection), now_s)
        elif request is not None:
            self._answered(request, frame)

    def _answered(self, request: Request, frame: Frame) -> None:
        self._requests.remove(request)
        if request.target is not None:
            self._tell_missed(self._interest.subscribed(request.target, request.since, frame.data))
        elif frame.type == "chat:ack" and request.frame["type"] == "chat:direct":
            self._direct_acked(request, msgspec.convert(frame.data, Ack))
        if not request.is_own:
            self._actions.append(Settle(request.id, frame.data))

    def _direct_acked(self, request: Request, ack: Ack) -> None:
        """One that was resent may have been shown before this connection was there: its room is resumed."""
        if self._interest.acked(ack) and request.tries > 1:
            self._requests.add({}, target=RoomSubscription(ack.chatroom_id), is_own=True)

    def _refused(self, request: Request, error: Rejection, now_s: float) -> None:
        if error.retryable:
            delay_s = min(self._options.backoff_first_s * 2.0 ** min(request.tries, 60), RETRY_MAX_S)
            if error.retry_after_ms is not None:
                delay_s = error.retry_after_ms / 1000
            limits_messages = error.code == "RATE_LIMITED"
            self._requests.retry(request, now_s + delay_s, limits_messages=limits_messages)
            return
        if request.target is not None:
            self._interest.refused(request.target)
            if request.is_own:
                lost = fields_of(request.target) | {"code": error.code, "message": error.message}
                self._actions.append(Emit("subscription:lost", lost))
        self._fail(request, RequestFailed(error.code, error.message, details=error.details))

    def _fail(self, request: Request, error: RequestFailed) -> None:
        self._requests.remove(request)
        if not request.is_own:
            self._actions.append(Fail(request.id, error))

    def _tell_missed(self, missed: Missed | None) -> None:
        if missed is not None:
            self._actions.append(Emit("missed", msgspec.to_builtins(missed)))


def _frame_of(type_: str, target: Subscription) -> dict[str, Any]:
    return {"type": type_} | fields_of(target)
