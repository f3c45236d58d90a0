"""Reservations of rooms: who sees whose, and how they end."""

from chat_service.partitions.reservations import RESERVED_FOR_MS, Quota, Reservation, Reservations


def joined(user_id: str, room_id: str) -> Reservation:
    return Reservation(Quota.JOINED, user_id, room_id)


def test_later_command_sees_the_rooms_of_earlier_ones() -> None:
    rooms = Reservations()
    assert rooms.reserve(joined("ann", "r1"), 0) == ()
    assert rooms.reserve(joined("ann", "r2"), 1) == ("r1",)
    assert rooms.reserve(joined("ann", "r3"), 2) == ("r1", "r2")
    assert rooms.reserve(joined("ben", "r1"), 3) == ()
    assert rooms.reserve(Reservation(Quota.CREATED, "ann", "r4"), 3) == ()


def test_command_that_arrives_again_does_not_count_itself() -> None:
    rooms = Reservations()
    rooms.reserve(joined("ann", "r1"), 0)
    rooms.reserve(joined("ann", "r2"), 0)
    assert rooms.reserve(joined("ann", "r1"), 1) == ("r2",)
    assert len(rooms) == 2


def test_released_room_is_not_pending() -> None:
    rooms = Reservations()
    for room_id in ("r1", "r2"):
        rooms.reserve(joined("ann", room_id), 0)
    rooms.release(joined("ann", "r1"))
    rooms.release(joined("ann", "r1"))
    assert rooms.reserve(joined("ann", "r3"), 1) == ("r2",)


def test_reservation_that_nobody_releases_ends() -> None:
    rooms = Reservations()
    for number in range(1000):
        rooms.reserve(joined(f"user_{number}", "r1"), number)
    rooms.reserve(joined("user_0", "r1"), 1000)
    assert rooms.reserve(joined("ann", "r1"), RESERVED_FOR_MS + 999) == ()
    assert len(rooms) == 2
