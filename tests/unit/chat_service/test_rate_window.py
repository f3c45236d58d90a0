"""The rate limit of one user: an exact sliding window."""

from hypothesis import given
from hypothesis import strategies as st

from chat_service.rate_window import SlidingWindow

MINUTE_MS = 60_000


def test_message_above_limit_waits_until_oldest_leaves_window() -> None:
    window = SlidingWindow(3)
    assert [window.take("u", at) for at in (0, 10, 20)] == [0, 0, 0]
    assert window.take("u", 30) == MINUTE_MS - 30
    assert window.take("u", MINUTE_MS - 1) == 1
    assert window.take("u", MINUTE_MS) == 0
    assert window.take("u", MINUTE_MS) == 10


def test_refused_message_does_not_count() -> None:
    window = SlidingWindow(1)
    window.take("u", 0)
    assert all(window.take("u", at) > 0 for at in range(1, 1000))
    assert window.take("u", MINUTE_MS) == 0


def test_users_are_counted_separately() -> None:
    window = SlidingWindow(1)
    assert (window.take("u", 0), window.take("v", 0)) == (0, 0)
    assert window.take("u", 1) > 0


def test_duplicate_is_given_back() -> None:
    window = SlidingWindow(1)
    window.take("u", 0)
    window.give_back("u")
    assert window.take("u", 1) == 0
    assert window.take("u", 2) == MINUTE_MS - 1


def test_giving_back_without_count_does_nothing() -> None:
    window = SlidingWindow(1)
    window.give_back("u")
    assert window.take("u", 0) == 0
    window.give_back("u")
    window.give_back("u")
    assert (window.take("u", 1), window.take("u", 2)) == (0, MINUTE_MS - 1)


steps = st.lists(
    st.tuples(st.sampled_from("uvw"), st.integers(0, 400), st.sampled_from(["take", "take", "take", "give back"])),
    max_size=80,
)


@given(steps, st.integers(1, 5))
def test_window_admits_exactly_limit(script: list[tuple[str, int, str]], limit: int) -> None:
    window = SlidingWindow(limit, window_ms=1000)
    sent: dict[str, list[int]] = {"u": [], "v": [], "w": []}
    now_ms = 0
    for user, pause_ms, action in script:
        now_ms += pause_ms
        if action == "give back":
            # A count is given back only right after it was taken, within its window.
            if sent[user] and sent[user][-1] > now_ms - 1000:
                sent[user].pop()
                window.give_back(user)
            continue
        in_window = [at for at in sent[user] if at > now_ms - 1000]
        wait_ms = window.take(user, now_ms)
        assert (wait_ms == 0) == (len(in_window) < limit)
        if wait_ms:
            assert wait_ms == in_window[-limit] + 1000 - now_ms
        else:
            sent[user].append(now_ms)
