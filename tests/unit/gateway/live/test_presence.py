"""Presence reports: which users have a socket here."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from gateway.live.presence import GRACE_S, Report, Roster


def reported_roster(*user_ids: str) -> Roster:
    """Return a roster whose lease has begun, with these users reported."""
    roster = Roster()
    for user_id in user_ids:
        roster.opened(user_id)
    roster.confirm(roster.next_report(0.0))
    return roster


def send_report(roster: Roster, now_s: float) -> Report:
    report = roster.next_report(now_s)
    roster.confirm(report)
    return report


def test_first_report_begins_the_lease() -> None:
    roster = Roster()
    roster.opened("u")
    assert roster.has_changes(0.0)
    assert send_report(roster, 0.0) == Report(("u",), (), True)
    assert not roster.has_changes(0.0)


def test_first_socket_is_reported_at_once_and_a_second_is_not() -> None:
    roster = reported_roster()
    roster.opened("u")
    assert roster.has_changes(0.0)
    assert send_report(roster, 0.0) == Report(("u",), (), False)
    roster.opened("u")
    assert not roster.has_changes(0.0)


def test_end_of_the_last_socket_is_reported_after_the_grace() -> None:
    roster = reported_roster("u", "u")
    roster.closed("u", 10.0)
    assert not roster.has_changes(10.0 + 2 * GRACE_S)
    roster.closed("u", 20.0)
    assert not roster.has_changes(20.0 + GRACE_S - 0.01)
    assert roster.has_changes(20.0 + GRACE_S)
    assert send_report(roster, 20.0 + GRACE_S) == Report((), ("u",), False)
    assert not roster.has_changes(40.0)


def test_reconnect_within_the_grace_is_not_reported() -> None:
    roster = reported_roster("u")
    roster.closed("u", 10.0)
    roster.opened("u")
    assert not roster.has_changes(100.0)
    assert send_report(roster, 100.0) == Report((), (), False)


def test_grace_restarts_with_each_last_socket() -> None:
    roster = reported_roster("u", "v")
    roster.closed("u", 0.0)
    roster.closed("v", 3.0)
    roster.opened("u")
    roster.closed("u", 4.0)
    assert send_report(roster, 8.0).went == ("v",)
    assert send_report(roster, 9.0).went == ("u",)


def test_user_who_connects_and_leaves_between_reports_is_not_reported() -> None:
    roster = reported_roster()
    roster.opened("u")
    roster.closed("u", 0.0)
    assert send_report(roster, 0.0) == Report((), (), False)
    assert not roster.has_changes(100.0)


def test_all_users_are_reported_again_after_a_lost_lease() -> None:
    roster = reported_roster("u", "v")
    roster.closed("v", 0.0)
    roster.lease_lost()
    assert roster.has_changes(1.0)
    report = send_report(roster, 1.0)
    assert (set(report.came), report.went, report.is_full) == ({"u", "v"}, (), True)  # v has its grace
    assert send_report(roster, GRACE_S).went == ("v",)


def test_unconfirmed_report_is_repeated() -> None:
    roster = reported_roster("u")
    roster.closed("u", 0.0)
    roster.opened("v")
    lost = roster.next_report(GRACE_S)
    assert (lost.came, lost.went) == (("v",), ("u",))
    assert roster.has_changes(GRACE_S)
    assert send_report(roster, GRACE_S) == lost


def test_departure_is_reported_after_an_unconfirmed_arrival() -> None:
    roster = reported_roster()
    roster.opened("u")
    roster.next_report(0.0)  # it takes effect, but no answer arrives
    roster.closed("u", 0.1)
    assert "u" in send_report(roster, 0.1 + GRACE_S).went


def test_arrival_is_reported_after_an_unconfirmed_departure() -> None:
    roster = reported_roster("u")
    roster.closed("u", 0.0)
    roster.next_report(GRACE_S)  # it takes effect, but no answer arrives
    roster.opened("u")
    assert "u" in send_report(roster, GRACE_S).came


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
    lease = False
    now_s = 0.0

    def take(report: Report) -> bool:
        nonlocal online, lease
        if not lease and not report.is_full:
            return False
        online = (set() if report.is_full else online) | set(report.came)
        online -= set(report.went)
        lease = True
        return True

    def report_now(fate: object) -> None:
        report = roster.next_report(now_s)
        if fate == "is lost":
            return
        known = take(report)
        if fate == "its answer is lost":
            return
        if known:
            roster.confirm(report)
        else:
            roster.lease_lost()

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
