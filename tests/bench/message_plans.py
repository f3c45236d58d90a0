"""Calls of the store of messages on changed ones; see `plans`."""

from collections.abc import Iterator

from chat_service.rooms.changes import AnyChange, Edit, Erasure, Pin, Reactions
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.storage.change_writes import bucket_key
from chat_service.storage.message_store import MessageStore
from shared.protocol.message_parts import ReactionChange, ReactionCount
from tests.bench.store_call import StoreCall

EMOJI = "👍"
REACTED_BY = 300
PINNED = 40
CHANGES_FROM_REV = 1_000_000
KINDS = {
    Edit: EntryKind.EDITED,
    Erasure: EntryKind.ERASED,
    Reactions: EntryKind.REACTED,
    Pin: EntryKind.PINNED,
}


def message_id(room_id: str, number: int) -> str:
    """Return the id of a message of `fill`."""
    return f"{room_id}_entry_{number + 1}"


def a_change(room_id: str, number: int, change: AnyChange) -> LogEntry:
    """Return the entry of a change, after all others."""
    rev = CHANGES_FROM_REV + number
    return LogEntry(
        id=f"{room_id}_change_{number}",
        room_id=room_id,
        rev=rev,
        kind=KINDS[type(change)],
        term=1,
        author_id="user_0",
        at_ms=rev,
        last_seq=1,
        member_count=1,
        change=change,
    )


def reactions(room_id: str, number: int, users: range) -> Reactions:
    """Return the reactions of some users to one message."""
    return Reactions(
        message_id=message_id(room_id, number),
        seq=number,
        command_ids=tuple(f"cmd_{user}" for user in users),
        changes=tuple(ReactionChange(user_id=f"user_{user}", emoji=EMOJI, added=True) for user in users),
        counts=(ReactionCount(emoji=EMOJI, count=len(users)),),
    )


async def fill_changes(store: MessageStore, room_id: str) -> None:
    """React to three messages, pin others, and mention users in others."""
    reacted: list[AnyChange] = [reactions(room_id, number, range(REACTED_BY)) for number in (1, 2, 3)]
    pinned = [Pin(message_id=message_id(room_id, 10 + n), seq=10 + n, is_pinned=True) for n in range(PINNED)]
    edited = [
        Edit(message_id=message_id(room_id, 60 + n), seq=60 + n, text="new", mentions=(f"user_{n}",)) for n in range(20)
    ]
    changes = [a_change(room_id, number, change) for number, change in enumerate([*reacted, *pinned, *edited])]
    await store.write_changes(changes)


def message_calls(store: MessageStore, room_id: str) -> Iterator[StoreCall]:
    """Yield a call of every method of the store."""
    ids = [message_id(room_id, number) for number in range(1, 21)]
    keys = [(ids[0], f"user_{number}", EMOJI) for number in range(20)]
    new: list[AnyChange] = [
        Edit(message_id=ids[3], seq=4, text="newer", mentions=("user_1",), previous_rev=30),
        Erasure(message_id=ids[2], seq=3, mentions=("user_1",), edit_rev=31),
        reactions(room_id, 6, range(20)),
        Pin(message_id=ids[6], seq=7, is_pinned=True),
    ]
    changes = [a_change(room_id, 500 + number, change) for number, change in enumerate(new)]
    yield StoreCall("by_id", lambda: store.by_id(ids))
    yield StoreCall("messages", lambda: store.messages(ids))
    yield StoreCall("current", lambda: store.current(changes))
    yield StoreCall("replies", lambda: store.replies(ids[0], 0, 20))
    yield StoreCall("reactions", lambda: store.reactions(keys))
    yield StoreCall("reaction_page", lambda: store.reaction_page(ids[0], None, 0, REACTED_BY), note="of any kind")
    yield StoreCall("reaction_page", lambda: store.reaction_page(ids[0], EMOJI, 0, REACTED_BY), note="of one kind")
    yield StoreCall("pins", lambda: store.pins(room_id))
    yield StoreCall("pin_marks", lambda: store.pin_marks(room_id, ids[:3]))
    buckets = [bucket_key(room_id, user_id, 0) for user_id in ("", "user_1", "user_2")]
    yield StoreCall("mentions", lambda: store.mentions(buckets))
    yield StoreCall("ever_mentioned", lambda: store.ever_mentioned(message_id(room_id, 61)))
    yield StoreCall("write_changes", lambda: store.write_changes(changes))
    yield StoreCall("purge", lambda: store.purge("room_97"))
