"""Checks of messages as they are now against the log that they follow from."""

import json
from collections import Counter

from chat_service.rooms.changes import Edit, Erasure, Pin, Reactions, message_after
from chat_service.rooms.log import LogEntry
from chat_service.rooms.mention_marks import mentioned
from chat_service.rooms.message import Message
from chat_service.storage.message_store import MessageStore
from shared.mongo import Database

SHOWN_LATER = {  # fields that change later
    *("message", "mentions", "mentionRoom", "replyTo", "attachments", "symbols"),
    *("reactions", "editedAt", "deletedAt", "deletedBy"),
}


def assert_same_frame(sent: bytes, stored: bytes) -> None:
    """Assert that a frame is that of its entry, but for what later changes have changed."""
    if sent == stored or not stored:  # an entry whose message was erased since has lost its frame
        return
    second = json.loads(stored)
    if not sent:  # found and delivered again after its message was erased
        assert second["data"].get("changes") == [] or second["data"].get("message") == "", second
        return
    first = json.loads(sent)
    if second["data"].get("changes") == []:  # erased with their message
        del second["data"]["changes"], first["data"]["changes"]
    for frame in (first, second):
        frame["data"] = {name: value for name, value in frame["data"].items() if name not in SHOWN_LATER}
    assert first == second, (first, second)


async def check_present(database: Database, store: MessageStore, log: list[LogEntry]) -> None:
    """Check messages, reactions, pins and mentions, and that no erased text is anywhere."""
    expected: dict[str, Message] = {}
    texts: dict[str, set[str]] = {}  # that no longer show, by message
    reactions: dict[str, Counter[str]] = {}
    pinned: dict[str, bool] = {}
    for entry in log:
        if entry.message is not None:
            expected[entry.message.id] = entry.message
        if (change := entry.change) is None:
            continue
        before = expected[change.message_id]
        expected[before.id] = message_after(before, change, by=entry.author_id, at_ms=entry.at_ms, rev=entry.rev)
        match change:
            case Edit():
                texts.setdefault(before.id, set()).add(f"text by edit {entry.id}")
            case Erasure():
                texts.setdefault(before.id, set()).add(f"text of {before.id}")
                pinned[before.id] = False
            case Reactions():
                counts = reactions.setdefault(before.id, Counter())
                for one in change.changes:
                    counts[one.emoji] += 1 if one.added else -1
                assert {one.emoji: one.count for one in change.counts} == +counts
                if change.changes:  # they are erased with their message
                    assert len(change.command_ids) == len(change.changes)
            case Pin():
                pinned[before.id] = change.is_pinned
    await _check_messages(store, expected)
    if log:
        shown = {pin.message_id for pin in await store.pins(log[0].room_id)}
        assert shown == {message_id for message_id, is_pinned in pinned.items() if is_pinned}
    for message_id, counts in reactions.items():
        _, total = await store.reaction_page(message_id, None, 0, 1)
        assert total == (0 if expected[message_id].is_deleted else sum(counts.values()))
    await _check_mentions(database, expected)
    everything = " ".join(
        [str(await database[name].find().to_list(None)) for name in await database.list_collection_names()]
    )
    for message_id, gone in texts.items():
        now = expected[message_id].text
        assert not [text for text in gone if text != now and f"{text}'" in everything], message_id


async def _check_messages(store: MessageStore, expected: dict[str, Message]) -> None:
    """Check the documents; those of tombstones have no content."""
    found = await store.by_id(expected)
    assert found.keys() == expected.keys()
    for message_id, message in expected.items():
        now = found[message_id]
        assert (now.is_deleted, now.edit_rev, now.erased_rev) == (
            message.is_deleted,
            message.edit_rev,
            message.erased_rev,
        )
        if message.is_deleted:
            assert (now.text, now.reactions, now.extras.mentions) == ("", (), ())
        else:
            assert now.reactions == message.reactions


async def _check_mentions(database: Database, expected: dict[str, Message]) -> None:
    found = await database["message_mentions"].find({"active": True}).to_list(None)
    marked = {(item["_id"].partition("/")[0], item["userId"]) for item in found}
    for message in expected.values():
        ours = {user_id for message_id, user_id in marked if message_id == message.id}
        assert ours == set(mentioned(message.extras)), message.id
