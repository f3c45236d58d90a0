"""Presence reports: which users have a socket here."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from gateway.live.presence import GRACE_S, PresenceBatch, Roster
from shared.commands.chat_queries import PRESENCE_BATCH_MAX


def reported_roster(*user_ids: str) -> Roster:
    """Return a roster with these users reported."""
    roster = Roster()
    for user_id in user_ids:
        roster.opened(user_id)
    roster.confirm(roster.next_batch(0.0))
    return roster


def send_batch(roster: Roster, now_s: float) -> PresenceBatch:
    batch = roster.next_batch(now_s)
    roster.confirm(batch)
    return batch


def test_first_socket_is_reported_at_once_and_a_second_is_not() -> None:
    roster = reported_roster()
    roster.opened("u")
    assert roster.has_changes(0.0)
    assert send_batch(roster, 0.0) == PresenceBatch(("u",), ())
    roster.opened("u")
    assert not roster.has_changes(0.0)


def test_end_of_the_last_socket_is_reported_after_the_grace() -> None:
    roster = reported_roster("u", "u")
    roster.closed("u", 10.0)
    assert not roster.has_changes(10.0 + 2 * GRACE_S)
    roster.closed("u", 20.0)
    assert not roster.has_changes(20.0 + GRACE_S - 0.01)
    assert roster.has_changes(20.0 + GRACE_S)
    assert send_batch(roster, 20.0 + GRACE_S) == PresenceBatch((), ("u",))
    assert not roster.has_changes(40.0)


def test_reconnect_within_the_grace_is_not_reported() -> None:
    roster = reported_roster("u")
    roster.closed("u", 10.0)
    roster.opened("u")
    assert not roster.has_changes(100.0)
    assert send_batch(roster, 100.0) == PresenceBatch((), ())


def test_grace_restarts_with_each_last_socket() -> None:
    roster = reported_roster("u", "v")
    roster.closed("u", 0.0)
    roster.closed("v", 3.0)
    roster.opened("u")
    roster.closed("u", 4.0)
    assert send_batch(roster, 8.0).went == ("v",)
    assert send_batch(roster, 9.0).went == ("u",)


def test_user_who_connects_and_leaves_between_reports_is_not_reported() -> None:
    roster = reported_roster()
    roster.opened("u")
    roster.closed("u", 0.0)
    assert send_batch(roster, 0.0) == PresenceBatch((), ())
    assert not roster.has_changes(100.0)


def test_all_users_are_reported_again_after_a_lost_lease() -> None:
    roster = reported_roster("u", "v")
    roster.closed("v", 0.0)
    roster.lease_lost()
    assert roster.has_changes(1.0)
    batch = send_batch(roster, 1.0)
    assert (set(batch.came), batch.went) == ({"u", "v"}, ())  # v has its grace
    assert send_batch(roster, GRACE_S).went == ("v",)


def test_unconfirmed_batch_is_repeated() -> None:
    roster = reported_roster("u")
    roster.closed("u", 0.0)
    roster.opened("v")
    lost = roster.next_batch(GRACE_S)
    assert (lost.came, lost.went) == (("v",), ("u",))
    assert roster.has_changes(GRACE_S)
    assert send_batch(roster, GRACE_S) == lost


def test_departure_is_reported_after_an_unconfirmed_arrival() -> None:
    roster = reported_roster()
    roster.opened("u")
    roster.next_batch(0.0)  # it takes effect, but no answer arrives
    roster.closed("u", 0.1)
    assert "u" in send_batch(roster, 0.1 + GRACE_S).went


def test_arrival_is_reported_after_an_unconfirmed_departure() -> None:
    roster = reported_roster("u")
    roster.closed("u", 0.0)
    roster.next_batch(GRACE_S)  # it takes effect, but no answer arrives
    roster.opened("u")
    assert "u" in send_batch(roster, GRACE_S).came


def test_changes_leave_in_batches_and_each_is_confirmed_alone() -> None:
    roster = Roster()
    for number in range(1200):
        roster.opened(f"u{number}")
    first = send_batch(roster, 0.0)
    lost = roster.next_batch(0.0)
    assert (len(first), len(lost)) == (PRESENCE_BATCH_MAX, PRESENCE_BATCH_MAX)
    assert not set(first.came) & set(lost.came)
    assert send_batch(roster, 0.0) == lost  # repeated alone: what arrived is never sent again
    assert len(send_batch(roster, 0.0)) == 200
    assert not roster.has_changes(0.0)


def test_user_who_returns_while_their_departure_is_sent_is_reported_again() -> None:
    roster = reported_roster("u")
    roster.closed("u", 0.0)
    batch = roster.next_batch(GRACE_S)
    roster.opened("u")
    roster.confirm(batch)
    assert send_batch(roster, GRACE_S) == PresenceBatch(("u",), ())
    assert not roster.has_changes(GRACE_S)


users = st.sampled_from("abc")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), users),
        st.tuples(st.just("close"), users),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, GRACE_S])),
        st.tuples(st.just("report"), st.sampled_from(["arrives", "is lost", "its answer is lost"])),
        st.tuples(st.just("lease lost"), st.none()),
    ),
    max_size=60,
)


@given(steps)
def test_receiver_converges_to_the_present_users(script: list[tuple[str, object]]) -> None:
    roster = Roster()
    sockets = dict.fromkeys("abc", 0)
    online: set[str] = set()  # as chat_service has it
    lease = True
    now_s = 0.0

    def take(report: PresenceBatch) -> bool:
        nonlocal online, lease
        if not lease:
            return False
        online = (online | set(report.came)) - set(report.went)
        return True

    def report_now(fate: object) -> None:
        nonlocal online, lease
        report = roster.next_batch(now_s)
        if fate == "is lost":
            return
        known = take(report)
        if fate == "its answer is lost":
            return
        if known:
            roster.confirm(report)
        else:
            roster.lease_lost()
            lease, online = True, set()  # another one begins, without users

    def settle() -> Iterator[None]:
        while roster.has_changes(now_s):
            report_now("arrives")
            yield

    for kind, detail in script:
        match kind:
            case "open":
                sockets[str(detail)] += 1
                roster.opened(str(detail))
            case "close" if sockets[str(detail)]:
                sockets[str(detail)] -= 1
                roster.closed(str(detail), now_s)
            case "wait":
                assert isinstance(detail, float)
                now_s += detail
            case "report":
                report_now(detail)
            case "lease lost":
                lease, online = False, set()
                report_now("arrives")  # the next renewal
    here = {user for user, count in sockets.items() if count}
    for _ in settle():
        pass
    assert here <= online
    now_s += GRACE_S + 0.01  # times are floats
    assert sum(1 for _ in settle()) <= 3
    assert online == here
