"""The adaptive limit on connection set-up."""

from gateway.admission.pace import ARRIVAL_GRACE_S, AT_ONCE_FIRST, AT_ONCE_MAX, AT_ONCE_MIN, SERVICE_GRACE_S, Pace


def test_so_many_may_be_arriving_and_room_comes_as_they_settle() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        assert pace.has_room(100.0)
        pace.arrived(number, 100.0)
    assert not pace.has_room(100.0)
    pace.settled(7)
    pace.settled(7)
    assert pace.has_room(100.0)


def test_who_is_silent_behind_its_upgrade_is_no_work() -> None:
    pace = Pace()
    for number in range(10 * AT_ONCE_MAX):
        assert pace.has_room(100.0)
        pace.arrived(number, 100.0)
        pace.settled(number)


def test_who_is_served_or_waits_for_it_leaves_no_room_for_others() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        assert pace.may_serve(100.0)
        pace.began(number, 100.0)
    assert not pace.may_serve(100.0)
    assert not pace.has_room(100.0)
    pace.waiting = 1
    pace.ended(7, 0.01)
    assert pace.may_serve(100.0)
    assert not pace.has_room(100.0)
    pace.waiting = 0
    assert pace.has_room(100.0)


def test_a_service_that_is_away_holds_up_nobody_for_longer_than_the_grace() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        pace.began(number, 100.0)
    assert not pace.may_serve(100.0 + SERVICE_GRACE_S - 0.01)
    assert pace.may_serve(100.0 + SERVICE_GRACE_S)
    pace.ended(3, 5.0)


def test_who_arrives_and_says_nothing_holds_up_nobody_for_longer_than_the_grace() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        pace.arrived(number, 100.0)
    assert not pace.has_room(100.0 + ARRIVAL_GRACE_S - 0.01)
    assert pace.has_room(100.0 + ARRIVAL_GRACE_S)


def test_the_bound_follows_how_late_the_loop_is() -> None:
    pace = Pace()
    for _ in range(100):
        pace.measured(0.0)
    assert pace.most == AT_ONCE_MAX
    pace.measured(0.2)
    assert pace.most == AT_ONCE_MAX * 2 // 3
    pace.measured(0.07)  # neither late nor in time
    assert pace.most == AT_ONCE_MAX * 2 // 3
    for _ in range(100):
        pace.measured(0.2)
    assert pace.most == AT_ONCE_MIN
    for _ in range(100):
        pace.measured(0.0)
    assert pace.most == AT_ONCE_MAX


def test_the_bound_follows_how_soon_clients_are_served() -> None:
    pace = Pace()
    for took_s in (0.05, 0.3):
        pace.ended(0, took_s)
    pace.measured(0.0)
    assert pace.most < AT_ONCE_FIRST
    fallen = pace.most
    pace.ended(0, 0.01)
    pace.measured(0.0)
    assert pace.most > fallen
    assert not pace.is_busy
