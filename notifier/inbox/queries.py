"""Queries on inboxes: replay for gateways, list and mark for REST. Any replica answers, from the database."""

from collections.abc import Callable
from typing import assert_never

import msgspec

from notifier.events.notifications import entry_frame, entry_view
from notifier.events.store import EventStore
from notifier.inbox.store import InboxStore
from shared.commands.command import REPLAY_MAX, REPLAY_MAX_BYTES, ReplayedFrames
from shared.commands.notifier import (
    AnyInboxRequest,
    CountUnread,
    InboxHead,
    ListNotifications,
    MarkAllRead,
    MarkNotificationRead,
    NotificationPage,
    NotificationView,
    OpenInbox,
    ReplayInbox,
    UnreadCount,
)
from shared.errors import Refusal


class InboxQueryHandler:
    """Answers `AnyInboxRequest`. Methods raise Refusal and Unavailable."""

    def __init__(self, store: InboxStore, events: EventStore, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._events = events
        self._clock_ms = clock_ms

    async def answer(self, query: AnyInboxRequest) -> msgspec.Struct:
        """Return the reply to one query."""
        match query:
            case OpenInbox():
                return await self._open(query)
            case ReplayInbox():
                return await self._replay(query)
            case ListNotifications():
                return await self._list(query)
            case CountUnread():
                return UnreadCount(unread_count=await self._store.count_unread(query.caller.user_id))
            case MarkNotificationRead():
                return await self._mark_read(query)
            case MarkAllRead():
                return await self._mark_all_read(query)
            case _:
                assert_never(query)

    async def _open(self, query: OpenInbox) -> InboxHead:
        """Return the head and the missed frames.

        `recovered` is False if too many entries were missed, some have expired, or `since` is beyond the head.
        """
        user_id = query.caller.user_id
        head = await self._store.head(user_id)
        since = head if query.since is None else query.since
        nothing = InboxHead(seq=head, recovered=False, first=head + 1, frames=())
        if not 0 <= head - since <= REPLAY_MAX:
            return nothing
        first, frames = await self._frames(user_id, since + 1, head)
        if first != since + 1 or len(frames) < head - since:
            return nothing
        return InboxHead(seq=head, recovered=True, first=first, frames=tuple(frames))

    async def _replay(self, query: ReplayInbox) -> ReplayedFrames:
        last = min(query.through, query.after + REPLAY_MAX)
        first, frames = await self._frames(query.caller.user_id, query.after + 1, last)
        return ReplayedFrames(first=first, frames=tuple(frames))

    async def _frames(self, user_id: str, first: int, last: int) -> tuple[int, list[msgspec.Raw]]:
        """Return the first seq and the frames of the first gapless run between `first` and `last`.

        The frames end with the first that takes them beyond 8 MB.
        """
        if last < first:
            return first, []
        entries = await self._store.entries_between(user_id, first, last)
        notices = await self._events.notices({entry.key for entry in entries})
        kept = [(entry, notices[entry.key]) for entry in entries if entry.key in notices]
        start = kept[0][0].seq if kept else first
        frames: list[msgspec.Raw] = []
        size_bytes = 0
        for seq, (entry, notice) in enumerate(kept, start):
            if entry.seq != seq or size_bytes > REPLAY_MAX_BYTES:
                break
            frames.append(msgspec.Raw(entry_frame(notice, entry)))
            size_bytes += len(notice.data)
        return start, frames

    async def _list(self, query: ListNotifications) -> NotificationPage:
        skip = (query.page - 1) * query.limit
        entries, total = await self._store.entry_page(
            query.caller.user_id, unread=query.unread, skip=skip, limit=query.limit
        )
        notices = await self._events.notices({entry.key for entry in entries})
        items = (entry_view(notices[entry.key], entry) for entry in entries if entry.key in notices)
        return NotificationPage(items=tuple(items), total=total)

    async def _mark_read(self, query: MarkNotificationRead) -> NotificationView:
        entry = await self._store.mark_read(query.caller.user_id, query.notification_id, self._clock_ms())
        notice = None if entry is None else (await self._events.notices([entry.key])).get(entry.key)
        if entry is None or notice is None:
            raise Refusal.not_found("notification")
        return entry_view(notice, entry)

    async def _mark_all_read(self, query: MarkAllRead) -> UnreadCount:
        user_id = query.caller.user_id
        await self._store.mark_all_read(user_id, await self._store.head(user_id), self._clock_ms())
        return UnreadCount(unread_count=await self._store.count_unread(user_id))
