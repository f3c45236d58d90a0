"""The consumer of log entries that notifies mentioned users, and erases the text of notifications with the message.

    entries → current messages, members → sent mentions on disk → events, confirmed
    deletions → notifier erases the text of all notifications of the message, including those that have yet to arrive

Every step is idempotent, so entries may be repeated. It is a consumer of the log follower, which calls it at least once
for each entry, in log order within each room, and again after Unavailable.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from chat_service import metrics
from chat_service.follower.consumer import RoomBatch
from chat_service.mentions.mention_events import (
    NOTIFIED_MEMBERS_MAX,
    Mentioning,
    event_id,
    mentioning_of,
    notice_key,
    room_event,
    user_event,
)
from chat_service.mentions.sent_mention_store import SentMentionStore
from chat_service.mentions.sent_mentions import Asked, SentMentions, all_within_rate
from chat_service.people.notify_rules import NotificationKind, may_be_notified
from chat_service.rooms.changes import Edit, Erasure
from chat_service.rooms.log import LogEntry
from chat_service.rooms.mention_marks import ROOM
from chat_service.rooms.message import Message
from chat_service.storage.member_store import MemberStore
from chat_service.storage.message_store import MessageStore
from shared.bus.bus import Bus
from shared.bus.confirms import confirmed
from shared.bus.events import NOTIFICATION_CREATED
from shared.bus.topology import EVENTS, NOTIFIER_QUERY
from shared.commands.command import GATEWAY
from shared.commands.notifier import ERASED_MAX, EraseNotices, NoticesErased
from shared.errors import RETRYABLE, Refusal, Unavailable
from shared.ids import Prefix, new_id
from shared.mongo import chunks

CONFLICTS_MAX = 20
AT_ONCE = 16  # calls to the database


class MentionNotifier:
    """Notifies mentioned members of rooms. Methods raise Unavailable; then the entries must be delivered again."""

    name = "mentions"

    def __init__(
        self,
        members: MemberStore,
        messages: MessageStore,
        sent: SentMentionStore,
        bus: Bus,
        clock_ms: Callable[[], int],
    ) -> None:
        self._members = members
        self._messages = messages
        self._sent = sent
        self._bus = bus
        self._clock_ms = clock_ms

    def wanted(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Return the entries that mention somebody, edit or erase: few."""
        return [
            entry  # HOT: almost all entries are messages
            for entry in entries
            if (entry.mentions_somebody if entry.change is None else isinstance(entry.change, Edit | Erasure))
        ]

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        """Process entries; idempotent.

        Erase first: a failed erasure repeats the whole batch, and with it any events published before.
        """
        entries = [entry for batch in batches for entry in batch.entries]
        erased = [entry.change.message_id for entry in entries if isinstance(entry.change, Erasure)]
        if erased:
            await self._erase(erased)
        mentioning = [found for entry in entries if (found := mentioning_of(entry)) is not None]
        if mentioning:
            await self._notify(mentioning)

    async def finish(self) -> None:
        """Do nothing: no entry is deferred."""

    # Notifying ------------------------------------------------------------------------------------------------------

    async def _notify(self, mentioning: Sequence[Mentioning]) -> None:
        """Publish the events of mentions in messages that are not deleted yet."""
        messages = await self._messages.by_id({one.message_id for one in mentioning})
        present = [one for one in mentioning if (message := messages.get(one.message_id)) and not message.is_deleted]
        pairs = {(one.room_id, user_id) for one in present for user_id in one.users}
        members = await self._members.members(pairs)
        joined = {pair for pair, member in members.items() if member.is_joined}
        wanted = [(one, users) for one in present if (users := _wanted(one, joined))]
        asked: dict[str, list[Asked]] = {}
        for one, users in wanted:
            ids = [event_id(one.message_id, user_id) for user_id in users]
            asked.setdefault(one.author_id, []).append(Asked(ids, one.at_ms))
        passed_ids = await self._within_rate(asked)
        confirms: list[asyncio.Future[None]] = []
        for one, users in wanted:
            passed = [user_id for user_id in users if event_id(one.message_id, user_id) in passed_ids]
            metrics.MENTIONS_OVER_RATE.inc(len(users) - len(passed))
            for event in await self._events(one, users, passed, messages[one.message_id]):
                confirms.append(self._bus.publish(EVENTS, NOTIFICATION_CREATED, event))
        await confirmed(confirms)
        metrics.MENTIONS_NOTIFIED.inc(len(confirms))

    async def _events(
        self, one: Mentioning, named: Collection[str], passed: Collection[str], message: Message
    ) -> list[bytes]:
        events = [user_event(message, user_id) for user_id in passed if user_id != ROOM]
        if ROOM in passed:
            others = [
                user_id
                for user_id in await self._members_of(one.room_id)
                if user_id not in named and may_be_notified(NotificationKind.MENTION, user_id, one.author_id)
            ]
            if others:
                events.append(room_event(message, others))
        return events

    async def _members_of(self, room_id: str) -> list[str]:
        members, _ = await self._members.member_page(room_id, 0, NOTIFIED_MEMBERS_MAX)
        return [member.user_id for member in members]

    async def _within_rate(self, asked: Mapping[str, Sequence[Asked]]) -> set[str]:
        """Return the ids of the events that the rates of their senders allow: a read for all, a write for each."""
        passed: set[str] = set()
        left = dict(asked)
        for _ in range(CONFLICTS_MAX):
            before = await self._sent.sent(left)
            for some in chunks(list(left), AT_ONCE):
                decided = await self._decide_some({user_id: left[user_id] for user_id in some}, before)
                passed.update(*decided.values())
                for user_id in decided:
                    del left[user_id]
            if not left:
                return passed
        raise Unavailable("the sent mentions of a sender keep changing")

    async def _decide_some(
        self, asked: Mapping[str, Sequence[Asked]], before: Mapping[str, SentMentions]
    ) -> dict[str, set[str]]:
        """Return, by sender, the ids within the rate. A sender whose sent mentions changed after the read is absent."""
        found = await asyncio.gather(
            *(
                self._within_rate_of(user_id, before.get(user_id, SentMentions()), events)
                for user_id, events in asked.items()
            )
        )
        return {user_id: ids for user_id, ids in zip(asked, found, strict=True) if ids is not None}

    async def _within_rate_of(self, user_id: str, before: SentMentions, asked: Sequence[Asked]) -> set[str] | None:
        """Return the ids within the rate, once on disk; None if the sent mentions changed after the read."""
        passed, after = all_within_rate(before, asked)
        is_new = {one.id for one in after.recent} - {one.id for one in before.recent}
        if is_new and not await self._sent.replace_sent(user_id, after, self._clock_ms()):
            return None
        return passed

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Do nothing: nothing is kept from one call to the next."""

    # Erasing --------------------------------------------------------------------------------------------------------

    async def _erase(self, message_ids: Sequence[str]) -> None:
        """Have notifier erase the text of all notifications of deleted messages."""
        keys: list[str] = []
        for some_ids in chunks(message_ids, AT_ONCE):
            mentioned = await asyncio.gather(*map(self._messages.ever_mentioned, some_ids))
            for message_id, users in zip(some_ids, mentioned, strict=True):
                keys += [notice_key(message_id, user_id) for user_id in users]
        for some in chunks(keys, ERASED_MAX):
            request = EraseNotices(
                id=new_id(Prefix.COMMAND), caller=GATEWAY, deadline_ms=self._bus.deadline_ms(), keys=tuple(some)
            )
            await self._request_erasure(request)

    async def _request_erasure(self, request: EraseNotices) -> None:
        """Send a request to notifier.

        Raises Unavailable for a refusal that may pass, such as that of an unavailable database, so that the entries
        are delivered again: the text must be erased from the notifications, however long notifier refuses.
        """
        try:
            await self._bus.request(NOTIFIER_QUERY, request, NoticesErased)
        except Refusal as refusal:
            if refusal.code in RETRYABLE:
                raise Unavailable(f"notifier refuses to erase: {refusal.code}") from refusal
            raise


def _wanted(one: Mentioning, joined: Collection[tuple[str, str]]) -> list[str]:
    """Return whom to notify of a mention if the rate allows: members mentioned individually, and `ROOM`."""
    named = (user_id for user_id in one.users if (one.room_id, user_id) in joined)
    users = [user_id for user_id in named if may_be_notified(NotificationKind.MENTION, user_id, one.author_id)]
    return [*users, ROOM] if one.of_room else users
