"""The writes to the log's projections that changes of messages cause. Does no I/O."""

from collections.abc import Sequence

import msgspec
from pymongo import UpdateOne

from chat_service.rooms.changes import AnyChange, Edit, Erasure, Pin, Reactions
from chat_service.rooms.log import LogEntry
from chat_service.rooms.mention_marks import MentionMark, marks_of
from chat_service.storage.message_documents import CONTENT
from shared.mongo import Document

BUCKET_MESSAGES = 5_000


def bucket_key(room_id: str, user_id: str, number: int) -> str:
    """Return the key of the mentions of a user, or of `ROOM`, in 5,000 consecutive messages of a room.

    So one `$in` finds the mentions of a user in hundreds of rooms, each from its read mark on.
    """
    return f"{room_id}/{user_id}/{number}"


def bucket_of(seq: int) -> int:
    """Return the number of the bucket that has a message."""
    return seq // BUCKET_MESSAGES


class ChangeWrites:
    """The writes of some entries: one for each document, so that their order in a bulk write does not matter."""

    def __init__(self) -> None:
        self._messages: dict[str, _MessageWrite] = {}
        self._edits: list[UpdateOne] = []
        self.reactions: dict[str, UpdateOne] = {}
        self.pins: dict[str, UpdateOne] = {}
        self.mentions: dict[str, UpdateOne] = {}
        self.erased: list[str] = []

    def of_log(self) -> list[UpdateOne]:
        """Return the writes on `room_log`."""
        return [write.update() for write in self._messages.values() if not write.is_old] + self._edits

    def of_old(self) -> list[UpdateOne]:
        """Return the writes on `messages`."""
        return [write.update() for write in self._messages.values() if write.is_old]

    def add(self, entry: LogEntry) -> None:
        """Add the writes of the next entry."""
        for mark in marks_of(entry):
            self._mention(entry, mark)
        match entry.change:
            case Edit() as change:
                fields = {"text": change.text, "editedAtMs": entry.at_ms, "editRev": entry.rev}
                if change.mentions:
                    self._set(entry, change, {**fields, "mentions": list(change.mentions)})
                else:
                    self._set(entry, change, fields, unset=("mentions",))
                self._erase_edit(entry, change.previous_rev)
            case Erasure() as change:
                tombstone = {"deletedAtMs": entry.at_ms, "deletedBy": entry.author_id, "erasedRev": entry.rev}
                self._set(entry, change, {"text": "", "editRev": 0, **tombstone}, unset=CONTENT)
                self.pins[change.message_id] = _unpinned(change.message_id, entry.rev)
                self.erased.append(change.message_id)
            case Reactions() as change:
                self._set(entry, change, {"reactions": [msgspec.to_builtins(count) for count in change.counts]})
                for reaction in change.changes:
                    key = reaction_key(change.message_id, reaction.user_id, reaction.emoji)
                    self.reactions[key] = _newer(
                        key,
                        entry,
                        is_active=reaction.added,
                        messageId=change.message_id,
                        emoji=reaction.emoji,
                        userId=reaction.user_id,
                        atMs=entry.at_ms,
                    )
            case Pin() as change:
                fields = {"userId": entry.author_id, "atMs": entry.at_ms}
                self.pins[change.message_id] = _newer(change.message_id, entry, is_active=change.is_pinned, **fields)
            case None:
                pass

    def _set(self, entry: LogEntry, change: AnyChange, fields: Document, unset: Sequence[str] = ()) -> None:
        write = self._messages.setdefault(change.message_id, _MessageWrite(change.message_id, is_old=change.is_old))
        write.add(entry.rev, fields, unset)

    def _erase_edit(self, entry: LogEntry, edit_rev: int) -> None:
        """Erase the text of an edit that no longer shows."""
        if edit_rev:
            erasure = {"$set": {"change.text": ""}, "$unset": {"change.mentions": ""}}
            self._edits.append(UpdateOne({"roomId": entry.room_id, "rev": edit_rev}, erasure))

    def _mention(self, entry: LogEntry, mark: MentionMark) -> None:
        message_id = entry.id if entry.change is None else entry.change.message_id
        key = f"{message_id}/{mark.user_id}"
        bucket = bucket_key(entry.room_id, mark.user_id, bucket_of(mark.seq))
        self.mentions[key] = _newer(
            key, entry, is_active=mark.is_active, userId=mark.user_id, seq=mark.seq, bucket=bucket
        )


class _MessageWrite:
    """The update of one message's document: the changes of several entries in one write."""

    def __init__(self, message_id: str, *, is_old: bool) -> None:
        self.is_old = is_old
        self._message_id = message_id
        self._rev = 0
        self._set: Document = {}
        self._unset: set[str] = set()

    def add(self, rev: int, fields: Document, unset: Sequence[str]) -> None:
        self._rev = rev
        self._set = {name: value for name, value in self._set.items() if name not in unset} | fields
        self._unset = (self._unset | set(unset)) - fields.keys()

    def update(self) -> UpdateOne:
        """Return the update, which changes nothing if a later change has been written already.

        The condition is part of the update. In the filter it would make SecantusDB scan the collection, because no
        index contains `shown`.
        """
        is_later = {"$gte": [{"$ifNull": ["$shown", 0]}, self._rev]}
        fields = {**self._set, "shown": self._rev}
        changed: Document = {
            name: {"$cond": [is_later, f"${name}", {"$literal": value}]} for name, value in fields.items()
        }
        changed |= {name: {"$cond": [is_later, f"${name}", "$$REMOVE"]} for name in self._unset}
        return UpdateOne({"_id": self._message_id}, [{"$set": changed}])


def reaction_key(message_id: str, user_id: str, emoji: str) -> str:
    """Return the `_id` of a reaction. Injective: neither the id of a message nor an emoji contains a slash."""
    return f"{message_id}/{emoji}/{user_id}"


def _newer(key: str, entry: LogEntry, *, is_active: bool, **fields: object) -> UpdateOne:
    """Return the upsert of a document unless a later entry has written it."""
    document = {"roomId": entry.room_id, "rev": entry.rev, "active": is_active, **fields}
    return UpdateOne({"_id": key, "rev": {"$lt": entry.rev}}, {"$set": document}, upsert=True)


def _unpinned(message_id: str, rev: int) -> UpdateOne:
    """Return the end of a deleted message's pin; there may be none."""
    return UpdateOne({"_id": message_id, "rev": {"$lt": rev}}, {"$set": {"active": False, "rev": rev}})
