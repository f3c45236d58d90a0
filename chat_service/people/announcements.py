"""The announcements of users' presence: content and recipients. Pure.

A user who comes online or goes offline is announced to each of their rooms, and to their partners in direct rooms.
A room with more than PRESENCE_ROOM_MAX members receives the number of members online instead: see `count_schedule`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from chat_service.people.presence_record import PresenceRecord, presence_frame
from chat_service.rooms.room import Membership
from shared.bus.delivery import Delivery, DeliveryKind, room_channel, user_channel
from shared.protocol.server_frames import RoomPresenceData, frame

USERS_MAX = 500


class RoomAudience(NamedTuple):
    """The number of a room's members, and the two users of a direct room."""

    member_count: int
    direct: tuple[str, ...] = ()


class Announcement(NamedTuple):
    """The effects for some memberships of changed users: deliveries, online flags, and large rooms to count."""

    deliveries: list[Delivery]
    flags: dict[bool, list[Membership]]  # by the new value of the online flag
    large_rooms: set[str]


def announce(
    memberships: Iterable[Membership],
    records: Mapping[str, PresenceRecord],
    rooms: Mapping[str, RoomAudience],
    room_max: int,
) -> Announcement:
    """Return the announcement for these memberships of the users in `records`."""
    announcement = Announcement([], {True: [], False: []}, set())
    frames = {user_id: presence_frame(record) for user_id, record in records.items()}
    for membership in memberships:
        is_online = records[membership.user_id].is_online
        if membership.is_flagged_online is not is_online:
            announcement.flags[is_online].append(membership)
        room = rooms.get(membership.room_id, RoomAudience(0))
        if room.member_count > room_max:
            announcement.large_rooms.add(membership.room_id)
            continue
        partners = [user_channel(other) for other in room.direct if other != membership.user_id]
        for channel in partners if room.direct else [room_channel(membership.room_id)]:
            data = frames[membership.user_id]
            announcement.deliveries.append(Delivery(channel, DeliveryKind.TRANSIENT, 0, "", data))
    return announcement


def count_delivery(room_id: str, active_now: int) -> Delivery:
    """Return the delivery of a large room's count."""
    data = frame("room:presence", RoomPresenceData(chatroom_id=room_id, active_now=active_now))
    return Delivery(room_channel(room_id), DeliveryKind.TRANSIENT, 0, "", data)


class BatchSize:
    """The number of users to announce at once: at most 500, fewer if they are members of many rooms."""

    def __init__(self) -> None:
        self.users = USERS_MAX

    def shrink(self, users: int, users_read: int) -> None:
        """Note that a batch of `users` users has too many memberships.

        A read up to the limit reached only `users_read` of them.
        """
        self.users = max(1, min(users // 2, users_read - 1))

    def halve(self) -> None:
        """Note that a batch failed."""
        self.users = max(1, self.users // 2)

    def note_done(self, memberships: int, memberships_max: int) -> None:
        """Note an announced batch. Batches grow again while they are far from full."""
        if memberships * 4 < memberships_max:
            self.users = min(self.users * 2, USERS_MAX)
