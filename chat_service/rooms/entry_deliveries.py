"""The deliveries that an entry of a room's log causes, made from the entry alone. Pure.

Thus the owner that inserts an entry, an owner that repairs an undelivered one, and a gateway that fetches a gap all
produce the same deliveries. On each channel exactly one delivery of an entry is ordered (ORDERED or DIRECT); by its
`rev` a gateway drops repeats and detects gaps. Control deliveries carry the same `rev` and are sent before the ordered
delivery: a gateway keeps an eviction until it has delivered the entry. A delivery without a frame only advances the
channel. Further frames of an entry, those of users who joined by it, have no place in the order; gateways drop repeats
by their key.

Invitations and removals also go to the channels of their users, whose sockets need not be subscribed to the room. Their
order is that of arrival, and gateways drop repeats by room and `rev`.
"""

from chat_service.rooms.change_frames import change_frame
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import message_frame
from shared.bus.delivery import ControlKind, Delivery, DeliveryKind, EndReason, Eviction, room_channel, user_channel
from shared.encoding import to_json
from shared.protocol.server_frames import (
    ChatroomUpdatedData,
    MemberInvitedData,
    MemberJoinedData,
    MemberLeftData,
    frame,
)

_JOINING_IMPLICITLY = frozenset({EntryKind.MESSAGE, EntryKind.REACTED})


def deliveries_of(entry: LogEntry, direct: tuple[str, str] | None) -> list[Delivery]:
    """Return the deliveries of an entry in order. `direct` are the users of a direct room, who need no subscription.

    In a direct room, the head of the previous entry is sent first: from it, a socket that does not know the room yet
    learns that it missed the previous entry. Without it, the socket would take the current entry for the room's first,
    and the current entry's head would then show no gap.
    """
    if direct is not None:
        before = (
            head_deliveries(entry.room_id, entry.rev - 1, entry.previous_at_ms, direct) if entry.previous_at_ms else []
        )
        frame_bytes = frame_of(entry)
        return before + [
            Delivery(user_channel(user_id), DeliveryKind.DIRECT, entry.rev, entry.room_id, frame_bytes)
            for user_id in direct
        ]
    channel = room_channel(entry.room_id)
    joined = joined_frames_of(entry)
    deliveries = own_deliveries_of(entry)
    deliveries += [Delivery(channel, DeliveryKind.CONTROL, entry.rev, kind, data) for kind, data in controls_of(entry)]
    deliveries += [
        Delivery(channel, DeliveryKind.UNORDERED, 0, f"{entry.rev}/{index}", data) for index, data in enumerate(joined)
    ]
    deliveries.append(Delivery(channel, DeliveryKind.ORDERED, entry.rev, "", frame_of(entry)))
    return deliveries


def own_deliveries_of(entry: LogEntry, *, sent_again: bool = False) -> list[Delivery]:
    """Return the deliveries to the channels of users whom the entry invites or removes.

    When they are sent again, sockets that have opened since the entry do not receive them.
    """
    before_ms = entry.at_ms if sent_again else 0
    match entry.kind:
        case EntryKind.CREATED:
            invited = (effect.user_id for effect in entry.members if effect.user_id != entry.author_id)
            return [_invitation(entry, user_id, before_ms) for user_id in invited]
        case EntryKind.ADDED if entry.settings is not None:  # entries of earlier versions have no settings
            return [_invitation(entry, entry.members[0].user_id, before_ms)]
        case EntryKind.REMOVED:
            user_id = entry.members[0].user_id
            eviction = Eviction(
                user_id=user_id, chatroom_id=entry.room_id, opened_before_ms=before_ms, reason=EndReason.REMOVED
            )
            channel = user_channel(user_id)
            return [Delivery(channel, DeliveryKind.CONTROL, entry.rev, ControlKind.EVICT, to_json(eviction))]
        case _:
            return []


def _invitation(entry: LogEntry, user_id: str, before_ms: int) -> Delivery:
    settings = entry.settings
    assert settings is not None, "an entry that invites shows the room"  # noqa: S101
    data = MemberInvitedData(chatroom_id=entry.room_id, name=settings.name, type=settings.type, by=entry.author_id)
    key = f"{entry.room_id}/{entry.rev}"
    return Delivery(user_channel(user_id), DeliveryKind.UNORDERED, before_ms, key, frame("member:invited", data))


def head_deliveries(room_id: str, rev: int, at_ms: int, direct: tuple[str, str] | None) -> list[Delivery]:
    """Return the deliveries with the head of a room, its newest rev.

    The head of a direct room has the time of the newest entry: a socket that was open then and has not joined the room
    has missed that entry.
    """
    if direct is None:
        return [Delivery(room_channel(room_id), DeliveryKind.HEAD, rev, "", b"")]
    time = b"%d" % at_ms
    return [Delivery(user_channel(user_id), DeliveryKind.DIRECT_HEAD, rev, room_id, time) for user_id in direct]


def controls_of(entry: LogEntry) -> list[tuple[ControlKind, bytes]]:
    """Return the control deliveries of an entry: pairs of kind and JSON data."""
    match entry.kind:
        case EntryKind.DELETED:
            return [(ControlKind.ROOM_DELETED, b"{}")]
        case EntryKind.UPDATED if entry.ends_public:
            return [(ControlKind.RECHECK, b"{}")]
        case EntryKind.REMOVED:
            removed = Eviction(user_id=entry.members[0].user_id, reason=EndReason.REMOVED)
            return [(ControlKind.EVICT, to_json(removed))]
        case EntryKind.LEFT if entry.members[0].is_invited:  # otherwise the room was public, and anyone may listen
            return [(ControlKind.EVICT, to_json(Eviction(user_id=entry.members[0].user_id)))]
        case _:
            return []


def frame_of(entry: LogEntry) -> bytes:
    """Return the client frame of an entry; empty for an entry that clients do not see."""
    match entry.kind:
        case EntryKind.MESSAGE if entry.message is not None:
            return message_frame(entry.message)
        case EntryKind.EDITED | EntryKind.ERASED | EntryKind.REACTED | EntryKind.PINNED if entry.change is not None:
            return change_frame(entry, entry.change)
        case EntryKind.JOINED | EntryKind.ADDED:
            return next(iter(_joined_frames(entry)), b"")
        case EntryKind.LEFT | EntryKind.REMOVED:
            user_id = entry.members[0].user_id
            data = MemberLeftData(chatroom_id=entry.room_id, user_id=user_id, member_count=entry.member_count)
            return frame("member:left", data)
        case EntryKind.UPDATED if entry.settings is not None:
            settings = entry.settings
            changed = ChatroomUpdatedData(
                chatroom_id=entry.room_id, name=settings.name, description=settings.description, type=settings.type
            )
            return frame("chatroom:updated", changed)
        case _:
            return b""


def joined_frames_of(entry: LogEntry) -> list[bytes]:
    """Return `member:joined` of the users whom a message or a reaction made members; direct rooms send none."""
    creates_direct = entry.settings is not None and entry.settings.direct is not None
    return _joined_frames(entry) if entry.kind in _JOINING_IMPLICITLY and not creates_direct else []


def _joined_frames(entry: LogEntry) -> list[bytes]:
    joined = (effect for effect in entry.members if effect.is_joined)
    return [
        frame(
            "member:joined",
            MemberJoinedData(
                chatroom_id=entry.room_id,
                user_id=effect.user_id,
                user=effect.profile,
                member_count=entry.member_count,
            ),
        )
        for effect in joined
    ]
