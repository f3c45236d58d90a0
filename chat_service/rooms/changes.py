"""Changes of stored messages, which their entries carry: edits, deletions, reactions, pins. Pure.

A change holds its effect as an after-image, so it can be written again, in the order of the log, by any owner.
"""

import msgspec

from chat_service.rooms.message import Message, tombstone
from shared.protocol.message_parts import ReactionChange, ReactionCount


class Change(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The base of all changes. `seq` is that of the message; `is_old`: it was stored before there was a log."""

    message_id: str
    seq: int
    is_old: bool = False


class Edit(Change, frozen=True, kw_only=True, tag="edit"):
    """The new text with all its mentions; `unmentioned` and `newly_mentioned` are the users removed and added.

    The entry of the previous edit, `previous_rev`, loses its text: only the current text is kept.
    """

    text: str
    mentions: tuple[str, ...] = ()
    unmentioned: tuple[str, ...] = ()
    newly_mentioned: tuple[str, ...] = ()
    previous_rev: int = 0


class Erasure(Change, frozen=True, kw_only=True, tag="erasure"):
    """The message becomes a tombstone: all entries about it lose their texts, and its mentions, reactions and pin end.

    `edit_rev` is stored, but not read.
    """

    mentions: tuple[str, ...] = ()
    mention_room: bool = False
    edit_rev: int = 0


class Reactions(Change, frozen=True, kw_only=True, tag="reactions"):
    """The reactions of one or more commands, made by users in order, and the counts after them."""

    command_ids: tuple[str, ...]
    changes: tuple[ReactionChange, ...]
    counts: tuple[ReactionCount, ...]


class Pin(Change, frozen=True, kw_only=True, tag="pin"):
    """The message is pinned or unpinned."""

    is_pinned: bool


AnyChange = Edit | Erasure | Reactions | Pin


def message_after(message: Message, change: AnyChange, *, by: str, at_ms: int, rev: int) -> Message:
    """Return the message after a change by user `by`, whose entry is `rev`."""
    match change:
        case Edit():
            extras = msgspec.structs.replace(message.extras, mentions=change.mentions)
            return msgspec.structs.replace(message, text=change.text, extras=extras, edited_at_ms=at_ms, edit_rev=rev)
        case Erasure():
            return tombstone(message, by=by, at_ms=at_ms, rev=rev)
        case Reactions():
            return msgspec.structs.replace(message, reactions=change.counts)
        case Pin():
            return message
