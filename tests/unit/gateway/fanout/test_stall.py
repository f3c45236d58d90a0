"""A process that stalled shows nothing of its old connection."""

from gateway.fanout.stall import STALL_S, StallGuard


def test_bodies_are_refused_from_stall_until_connection_is_gone() -> None:
    stalls: list[str] = []
    guard = StallGuard(lambda: stalls.append("stall"), 10.0)
    guard.tick(10.5)
    assert not guard.refuses(10.5 + STALL_S)
    assert guard.refuses(10.6 + STALL_S)
    assert guard.refuses(10.7 + STALL_S)
    assert stalls == ["stall"]
    guard.tick(10.8 + STALL_S)
    assert guard.refuses(10.9 + STALL_S)
    guard.disconnected()
    assert not guard.refuses(11.0 + STALL_S)


def test_late_tick_counts_as_stall() -> None:
    stalls: list[str] = []
    guard = StallGuard(lambda: stalls.append("stall"), 10.0)
    guard.tick(10.1 + STALL_S)
    assert stalls == ["stall"]
    assert guard.refuses(10.2 + STALL_S)


def test_one_stall_is_reported_once() -> None:
    stalls: list[str] = []
    guard = StallGuard(lambda: stalls.append("stall"), 10.0)
    assert guard.refuses(10.1 + STALL_S)
    guard.disconnected()
    guard.tick(10.2 + STALL_S)
    assert stalls == ["stall"]


def test_stall_between_two_connections_refuses_nothing_of_the_next() -> None:
    guard = StallGuard(lambda: None, 10.0)
    guard.disconnected()
    guard.tick(10.1 + STALL_S)
    assert guard.refuses(10.1 + STALL_S)
    guard.connected(10.2 + STALL_S)
    assert not guard.refuses(10.2 + STALL_S)


def test_wait_for_first_connection_is_not_a_stall() -> None:
    stalls: list[str] = []
    guard = StallGuard(lambda: stalls.append("stall"), 10.0)
    guard.connected(30.0)
    assert not guard.refuses(30.1)
    guard.tick(30.5)
    assert stalls == []
