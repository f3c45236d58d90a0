"""The items that a resuming socket missed: read from history, with their bytes reserved until they are sent."""

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, NamedTuple

from gateway.backend import Backend
from gateway.fanout.channel import Channel
from gateway.fanout.replays import Replayed, Replays, size_of
from gateway.fanout.wire import text_frame
from gateway.live.socket import Socket
from shared.byte_budget import ByteBudget, Hold
from shared.commands.chat import RoomHead
from shared.commands.command import GATEWAY, REPLAY_MAX, replay_max_bytes
from shared.commands.notifier import MISSED_BYTES, InboxHead
from shared.protocol.client_frames import ChatroomTarget, NotificationsTarget

REVS_READ_MAX = 4_000  # of which at most 1,000 may be for clients


class RoomAnswer(NamedTuple):
    """The head of a room, and the WebSocket frames that the client missed; `recovered` if they are complete."""

    head: RoomHead
    recovered: bool
    missed: list[bytes]
    hold: Hold | None = None


class InboxAnswer(NamedTuple):
    """The head of an inbox, and the WebSocket frames that the client missed."""

    head: InboxHead
    missed: list[bytes]
    hold: Hold


class MissedItems:
    """Checks access and reads missed items. Their bytes stay reserved in the budget until `held` closes.

    Methods raise Refusal and Unavailable.
    """

    def __init__(
        self, backend: Backend, reads: ByteBudget, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._backend = backend
        self._reads = reads
        self._messages = Replays(self._read_messages, spawn)
        self._entries = Replays(self._read_entries, spawn)

    async def of_room(self, socket: Socket, target: ChatroomTarget, channel: Channel, held: ExitStack) -> RoomAnswer:
        """Query the partition for access and the room's head, and read the missed messages or entries."""
        head = await self._backend.subscribe_room(socket.caller, target.chatroom_id)
        if target.since_rev is not None:
            position, after, replays = head.rev, target.since_rev, self._entries
        elif target.since is not None:
            position, after, replays = head.seq, target.since, self._messages
        else:
            return RoomAnswer(head, recovered=False, missed=[])
        if not _may_be_recovered(head, target, position - after):
            return RoomAnswer(head, recovered=False, missed=[])
        if position == after:
            return RoomAnswer(head, recovered=True, missed=[])
        hold = await self._hold(socket, replay_max_bytes(after, position), held)
        replayed = await replays.read(target.chatroom_id, after, position, head.changed_rev)
        hold.resize(size_of(replayed))
        if len(replayed) != position - after:  # the missed items exceed 1,000 entries or 8 MB
            return RoomAnswer(head, recovered=False, missed=[])
        shown = channel.received_implicitly(socket)
        missed = [frame for item in replayed if item.rev not in shown for frame in item.frames]
        return RoomAnswer(head, recovered=True, missed=missed, hold=hold)

    async def of_inbox(self, socket: Socket, target: NotificationsTarget, held: ExitStack) -> InboxAnswer:
        """Query notifier for the head of the user's inbox and the missed entries."""
        hold = await self._hold(socket, MISSED_BYTES, held)
        head = await self._backend.open_inbox(socket.caller, target.since)
        missed = [text_frame(bytes(item)) for item in head.frames]
        hold.resize(sum(map(len, missed)))
        return InboxAnswer(head, missed, hold)

    # Read once for all readers: the partition has granted each of them access up to the room's head.

    async def _read_messages(self, room_id: str, after: int, through: int) -> list[Replayed]:
        found = await self._backend.replay_messages(GATEWAY, room_id, after, through)
        pairs = zip(found.revs, found.frames, strict=True)
        return [Replayed(rev, (text_frame(bytes(frame)),)) for rev, frame in pairs]

    async def _read_entries(self, room_id: str, after: int, through: int) -> list[Replayed]:
        found = (await self._backend.replay_entries(GATEWAY, room_id, after, through)).entries
        return [Replayed(entry.rev, tuple(map(text_frame, entry.frames))) for entry in found]

    async def _hold(self, socket: Socket, size_bytes: int, held: ExitStack) -> Hold:
        hold = await self._reads.hold(socket.user_id, size_bytes)
        held.callback(hold.release)
        return hold


def _may_be_recovered(head: RoomHead, target: ChatroomTarget, missed: int) -> bool:
    """Return whether the missed items may fit into one replay, as far as the head shows.

    With `since`, every missed position is a message: at most 1,000. With `since_rev`, some missed entries are not for
    clients, so up to 4,000 entries are read. But at least `head.seq` - `since_rev` of them are messages, because a
    message's seq is never above its rev; beyond 1,000, reading is useless.
    """
    if target.since_rev is None:
        return 0 <= missed <= REPLAY_MAX
    return 0 <= missed <= REVS_READ_MAX and head.seq - target.since_rev <= REPLAY_MAX
