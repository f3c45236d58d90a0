"""The adaptive limit on connection set-up."""

from gateway.admission.pace import ARRIVAL_GRACE_S, AT_ONCE_FIRST, AT_ONCE_MAX, AT_ONCE_MIN, SERVICE_GRACE_S, Pace


def test_arriving_connections_are_limited_until_they_settle() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        assert pace.has_room(100.0)
        pace.arrived(number, 100.0)
    assert not pace.has_room(100.0)
    pace.settled(7)
    pace.settled(7)
    assert pace.has_room(100.0)


def test_idle_upgraded_client_takes_no_room() -> None:
    pace = Pace()
    for number in range(10 * AT_ONCE_MAX):
        assert pace.has_room(100.0)
        pace.arrived(number, 100.0)
        pace.settled(number)


def test_served_and_waiting_clients_take_room() -> None:
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


def test_unavailable_service_delays_others_by_grace_at_most() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        pace.began(number, 100.0)
    assert not pace.may_serve(100.0 + SERVICE_GRACE_S - 0.01)
    assert pace.may_serve(100.0 + SERVICE_GRACE_S)
    pace.ended(3, 5.0)


def test_silent_connection_delays_others_by_grace_at_most() -> None:
    pace = Pace()
    for number in range(AT_ONCE_FIRST):
        pace.arrived(number, 100.0)
    assert not pace.has_room(100.0 + ARRIVAL_GRACE_S - 0.01)
    assert pace.has_room(100.0 + ARRIVAL_GRACE_S)


def test_limit_follows_event_loop_lag() -> None:
    pace = Pace()
    for _ in range(100):
        pace.measured(0.0)
    assert pace.limit == AT_ONCE_MAX
    pace.measured(0.2)
    assert pace.limit == AT_ONCE_MAX * 2 // 3
    pace.measured(0.07)  # neither late nor on time
    assert pace.limit == AT_ONCE_MAX * 2 // 3
    for _ in range(100):
        pace.measured(0.2)
    assert pace.limit == AT_ONCE_MIN
    for _ in range(100):
        pace.measured(0.0)
    assert pace.limit == AT_ONCE_MAX


def test_limit_follows_set_up_time() -> None:
    pace = Pace()
    for took_s in (0.05, 0.3):
        pace.ended(0, took_s)
    pace.measured(0.0)
    assert pace.limit < AT_ONCE_FIRST
    fallen = pace.limit
    pace.ended(0, 0.01)
    pace.measured(0.0)
    assert pace.limit > fallen
    assert not pace.is_busy


def test_pace_is_idle_once_no_client_arrives_waits_or_is_set_up() -> None:
    pace = Pace()
    assert pace.is_idle(0.0)
    pace.arrived("a", 0.0)
    assert not pace.is_idle(0.0)
    pace.settled("a")
    pace.began("a", 0.0)
    assert not pace.is_idle(SERVICE_GRACE_S / 2)
    assert pace.is_idle(SERVICE_GRACE_S)
    pace.waiting = 1
    assert not pace.is_idle(SERVICE_GRACE_S)
