"""Subscriptions under way: a reservation and joined channels, rolled back if the attempt fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_never

from gateway.fanout.channel import Channel
from gateway.fanout.hub import Hub
from gateway.fanout.membership import ChannelMembership
from gateway.live.socket import Socket
from shared.bus.delivery import ALL_CHANNEL
from shared.errors import RETRYABLE, Refusal, Unavailable
from shared.protocol.client_frames import (
    ActivityTarget,
    ChatroomTarget,
    CommunityTarget,
    MarketTarget,
    NotificationsTarget,
    Target,
)


class Attempts:
    """The attempts to subscribe of all sockets of one gateway process."""

    def __init__(self, hub: Hub, membership: ChannelMembership) -> None:
        self._hub = hub
        self._membership = membership

    @asynccontextmanager
    async def attempt(self, socket: Socket, target: Target, names: list[str]) -> AsyncIterator[list[Channel]]:
        """Join the channels of a subscription.

        It is reserved, under its first channel, for the duration of the block; a failure rolls the joins back.
        """
        counted = "" if isinstance(target, MarketTarget) else names[0]
        socket.session.reserve(target, counted)
        try:
            yield await self._membership.join_all(socket, names)
        except BaseException as error:
            self._roll_back(socket, target, names, error)
            raise
        finally:
            socket.session.release(counted)

    def _roll_back(self, socket: Socket, target: Target, names: list[str], error: BaseException) -> None:
        """End an attempt that failed. The socket's earlier subscription continues if the attempt may succeed later.

        Otherwise that earlier subscription ends too. Earlier subscriptions to prices always continue.
        """
        match target:
            case MarketTarget():
                for name, symbol in zip(names, dict.fromkeys(target.symbols), strict=True):
                    self._restore_prices(socket, name, symbol)
            case NotificationsTarget():
                self._end_attempt(socket, names[0], error)
                if names[0] not in socket.session.subscriptions:
                    self.leave(socket, ALL_CHANNEL)
            case ActivityTarget():
                pass  # it joins no channel
            case ChatroomTarget() | CommunityTarget():
                self._end_attempt(socket, names[0], error)
            case _:
                assert_never(target)

    def _restore_prices(self, socket: Socket, name: str, symbol: str) -> None:
        rate = socket.session.symbols.get(symbol)
        channel = self._hub.channels.get(name)
        if rate is None or channel is None:
            self.leave(socket, name)
        else:
            channel.go_live_prices(socket, rate, _now_s())

    def _end_attempt(self, socket: Socket, name: str, error: BaseException) -> None:
        may_succeed_later = isinstance(error, Unavailable) or (isinstance(error, Refusal) and error.code in RETRYABLE)
        channel = self._hub.channels.get(name)
        if not may_succeed_later or channel is None:
            self.leave(socket, name)
        elif not channel.resume(socket, _now_s()):
            channel.linger(socket, _now_s())

    def leave(self, socket: Socket, name: str) -> None:
        """End the subscription of a socket to one channel, or its attempt."""
        socket.unsubscribed(name)
        self._membership.leave(socket, name)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
