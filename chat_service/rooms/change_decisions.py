"""Decisions on stored messages: edit, delete, react, pin. Pure.

Each function decides one command: it returns the reply, or raises Refusal. A change already in effect makes no entry;
it is answered with the rev of the entry that made it.
"""

from chat_service.rooms.changes import Edit, Erasure, Pin, Reactions
from chat_service.rooms.decision import Decision, Toggle
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import Message
from chat_service.rooms.room import Room, RoomType, may_moderate, may_see, rank_of
from shared.commands.chat import Changed, DeleteMessage, EditMessage, PinMessage, React
from shared.errors import ErrorCode, Refusal
from shared.protocol.message_parts import ReactionChange, ReactionCount

REACTION_KINDS_MAX = 20
PINS_MAX = 50
_NEVER = Toggle(is_active=False, rev=0)


def edit(decision: Decision, command: EditMessage) -> Changed:
    """Change the text of the caller's own message, and its mentions if they are given."""
    room = decision.visible_room()
    message = decision.message(command.message_id)
    if message.user_id != decision.caller.user_id:
        raise Refusal(ErrorCode.FORBIDDEN, "only the author of a message may edit it")
    _check_not_deleted(message)
    mentions = message.extras.mentions if command.mentions is None else command.mentions
    if (command.message, mentions) == (message.text, message.extras.mentions):
        return _changed(message, message.edit_rev or message.rev)
    if decision.now_ms - message.created_at_ms >= decision.rules.edit_window_ms:
        raise Refusal(ErrorCode.EDIT_WINDOW, "the message can no longer be edited")
    if not command.message and not message.extras.attachments:
        raise Refusal.invalid("message", "must not be blank in a message without attachments")
    check_mentions(decision, room, command.mentions or ())
    decision.check_limits()
    change = Edit(
        message_id=message.id,
        seq=message.seq,
        is_old=decision.is_old(message),
        text=command.message,
        mentions=mentions,
        unmentioned=tuple(user_id for user_id in message.extras.mentions if user_id not in mentions),
        newly_mentioned=tuple(user_id for user_id in mentions if user_id not in message.extras.mentions),
        previous_rev=message.edit_rev,
    )
    return _changed(message, decision.change_message(EntryKind.EDITED, message, change))


def delete(decision: Decision, command: DeleteMessage) -> Changed:
    """Replace a message by a tombstone, which unpins it too."""
    room = _managed_or_visible_room(decision)
    message = decision.message(command.message_id)
    if not _may_delete(decision, room, message):
        reason = "only the author of a message, or a moderator who ranks above the author, may delete it"
        raise Refusal(ErrorCode.FORBIDDEN, reason)
    if message.is_deleted:
        return _changed(message, message.erased_rev)
    decision.check_limits()
    change = Erasure(
        message_id=message.id,
        seq=message.seq,
        is_old=decision.is_old(message),
        mentions=message.extras.mentions,
        mention_room=message.extras.mention_room,
        edit_rev=message.edit_rev,
    )
    rev = decision.change_message(EntryKind.ERASED, message, change)
    decision.state.pins[message.id] = Toggle(is_active=False, rev=rev)
    return _changed(message, rev)


def react(decision: Decision, command: React) -> Changed:
    """Add or remove the caller's reaction.

    A non-member who reacts in a public room becomes a member, as a sender does.
    """
    room = decision.visible_room()
    message = decision.message(command.message_id)
    _check_not_deleted(message)
    user_id = decision.caller.user_id
    key = (message.id, user_id, command.emoji)
    before = decision.state.reactions.get(key, _NEVER)
    if before.is_active is not command.is_removal:
        return _changed(message, before.rev or message.rev)
    counts = _counts_after(message.reactions, command.emoji, -1 if command.is_removal else 1)
    if len(counts) > REACTION_KINDS_MAX:
        raise Refusal(ErrorCode.CONFLICT, f"emoji: a message can have at most {REACTION_KINDS_MAX} kinds of reactions")
    decision.check_limits()
    if not command.is_removal and decision.joined_member(user_id) is None:
        decision.add_member(room, user_id, decision.pending.profile)
    change = Reactions(
        message_id=message.id,
        seq=message.seq,
        is_old=decision.is_old(message),
        command_ids=(command.id,),
        changes=(ReactionChange(user_id=user_id, emoji=command.emoji, added=not command.is_removal),),
        counts=counts,
    )
    rev = decision.change_reactions(message, change)
    decision.state.reactions[key] = Toggle(is_active=not command.is_removal, rev=rev)
    return _changed(message, rev)


def pin(decision: Decision, command: PinMessage) -> Changed:
    """Pin a message, or unpin it."""
    room = _managed_or_visible_room(decision)
    if room.direct is None and not decision.moderates(room):
        raise Refusal(ErrorCode.FORBIDDEN, "only moderators of the room and those above them may pin messages")
    message = decision.message(command.message_id)
    before = decision.state.pins.get(message.id, _NEVER)
    if before.is_active is not command.is_removal:
        return _changed(message, before.rev or message.rev)
    if not command.is_removal:
        _check_not_deleted(message)
        if sum(mark.is_active for mark in decision.state.pins.values()) >= PINS_MAX:
            raise Refusal(ErrorCode.CONFLICT, f"a room can have at most {PINS_MAX} pinned messages")
    decision.check_limits()
    change = Pin(
        message_id=message.id, seq=message.seq, is_old=decision.is_old(message), is_pinned=not command.is_removal
    )
    rev = decision.change_message(EntryKind.PINNED, message, change)
    decision.state.pins[message.id] = Toggle(is_active=change.is_pinned, rev=rev)
    return _changed(message, rev)


def changed_before(entry: LogEntry) -> Changed:
    """Return the change that an earlier copy of the command made."""
    assert entry.change is not None, "the entry of a change carries it"  # noqa: S101
    return Changed(chatroom_id=entry.room_id, message_id=entry.change.message_id, rev=entry.rev)


def check_mentions(decision: Decision, room: Room, mentions: tuple[str, ...]) -> None:
    """Raise VALIDATION unless all are members. In a public room, anybody may be mentioned."""
    if room.type is RoomType.PUBLIC:
        return
    for user_id in mentions:
        if decision.joined_member(user_id) is None:
            raise Refusal.invalid("mentions", f"{user_id} is not a member of the room")


def _changed(message: Message, rev: int) -> Changed:
    return Changed(chatroom_id=message.room_id, message_id=message.id, rev=rev)


def _check_not_deleted(message: Message) -> None:
    if message.is_deleted:
        raise Refusal(ErrorCode.CONFLICT, "the message is deleted")


def _managed_or_visible_room(decision: Decision) -> Room:
    """Return the room. An admin sees every room but direct ones; raises NOT_FOUND for others who do not see it."""
    room = decision.state.room
    if room is not None and not room.deleted and room.direct is None and decision.caller.is_admin:
        return room
    if room is None or not may_see(room, decision.joined_member(decision.caller.user_id)):
        raise Refusal.not_found("room")
    return room


def _may_delete(decision: Decision, room: Room, message: Message) -> bool:
    if message.user_id == decision.caller.user_id:
        return True
    if room.direct is not None:
        return False
    author = rank_of(room, message.user_id, decision.joined_member(message.user_id))
    return may_moderate(decision.rank(room), author)


def _counts_after(counts: tuple[ReactionCount, ...], emoji: str, step: int) -> tuple[ReactionCount, ...]:
    """Return the counts with one reaction more or less, in the order in which the emoji first appeared."""
    found = {item.emoji: item.count for item in counts}
    found[emoji] = found.get(emoji, 0) + step
    return tuple(ReactionCount(emoji=kind, count=count) for kind, count in found.items() if count > 0)
