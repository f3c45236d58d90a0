"""Live events on the terminal, across reconnects."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from realtime_client import Event, RealtimeClient, RequestFailed
from shared.errors import ErrorCode, RealtimeError, Refusal, Unavailable

CONNECT_TIMEOUT_S = 10.0
PRICES_PER_S = 10.0

_OWN = frozenset({"state", "missed", "subscription:lost"})  # events of the client library, not of the server
_ANSWERS = frozenset({"auth:ok", "subscribed", "unsubscribed", "pong"})


class TailTarget(NamedTuple):
    """A channel and its subscription options."""

    channel: str
    options: dict[str, Any]


def interests(targets: Sequence[str], communities: Sequence[str], *, notifications: bool) -> list[TailTarget]:
    """Return the subscriptions for the arguments. A target `room_…` is a room, any other a symbol."""
    rooms = [target for target in targets if target.startswith("room_")]
    symbols = [target for target in targets if not target.startswith("room_")]
    return [
        *(TailTarget("chatroom", {"chatroom_id": room}) for room in rooms),
        *([TailTarget("market", {"symbols": symbols, "max_rate": PRICES_PER_S})] if symbols else []),
        *(TailTarget("community", {"community_id": name}) for name in communities),
        *([TailTarget("notifications", {})] if notifications else []),
    ]


async def tail(
    url: str,
    token: Callable[[], str],
    wanted: Sequence[TailTarget],
    count: int | None,
    emit: Callable[[str, Any], None],
) -> None:
    """Subscribe and pass `count` events to `emit`, or all events until cancelled. Raises Refusal, Unavailable."""

    async def fetch(_: object) -> str:
        return token()

    async with RealtimeClient(url, fetch) as client:
        try:
            await _follow(client, wanted, count, emit)
            return
        except RequestFailed as error:
            failure: Exception = _as_refusal(error)
        except (RealtimeError, BrokenPipeError) as error:
            failure = error
    raise failure


async def _follow(
    client: RealtimeClient, wanted: Sequence[TailTarget], count: int | None, emit: Callable[[str, Any], None]
) -> None:
    events = client.events()
    await _in_time(client.connected)
    for interest in wanted:
        answer = await client.subscribe(interest.channel, **interest.options)
        if unknown := (answer or {}).get("unknown"):
            raise Refusal(ErrorCode.NOT_FOUND, f"unknown symbol: {', '.join(unknown)}")
    left = count
    async for event in events:
        if event.type in _OWN:
            _report_connection(event)
        if event.type in _OWN | _ANSWERS:
            continue
        emit(event.type, event.data)
        if left is not None and (left := left - 1) == 0:
            return
    raise Refusal(ErrorCode.FORBIDDEN, "the server closed the connection permanently")


def _report_connection(event: Event) -> None:
    """Report connection changes on standard error, since they are not part of the output."""
    if event.type == "missed" or (event.type == "state" and event.data["state"] == "waiting"):
        what = "connection lost, reconnecting" if event.type == "state" else "some events were missed"
        print(f"realtime: {what}", file=sys.stderr, flush=True)


async def _in_time(connected: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connected()
    except TimeoutError as error:
        raise Unavailable("cannot reach the gateway: check GATEWAY_URL") from error


def _as_refusal(error: RequestFailed) -> RealtimeError:
    try:
        return Refusal(ErrorCode(error.code), error.message)
    except ValueError:
        return Unavailable(error.message)
