"""A user's revocation, event by event."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.revocations.rules import RevocationEvent, apply, read_revocation_event
from shared.bus.events import CloudEvent
from shared.commands.notifier import FOR_EVER_MS, Revocation
from shared.errors import Malformed
from shared.times import from_iso

NOW_MS = from_iso("2026-01-01T00:00:00Z")
THEN = "2025-10-21T12:00:00Z"
THEN_MS = from_iso(THEN)


def event(type_: str, data: dict[str, Any], **more: Any) -> RevocationEvent:
    return read_revocation_event(
        CloudEvent(specversion="1.0", id="e", source="/s", type=type_, data=data, **more), NOW_MS
    )


def revoked(at_ms: int) -> RevocationEvent:
    return RevocationEvent("k", at_ms, "u", None)


def banned(until_ms: int) -> RevocationEvent:
    return RevocationEvent("k", NOW_MS, "u", until_ms)


def test_revocation_applies_from_its_time() -> None:
    assert event("user.revoked", {"userId": "u"}, time=THEN).at_ms == THEN_MS
    assert event("user.revoked", {"userId": "u"}).at_ms == NOW_MS
    assert event("user.revoked", {"userId": "u", "until": THEN}).banned_until_ms is None


def test_revocation_from_future_keeps_current_tokens() -> None:
    assert event("user.revoked", {"userId": "u"}, time="2099-01-01T00:00:00Z").at_ms == NOW_MS


def test_ban_ends_at_its_time_or_never() -> None:
    assert event("user.banned", {"userId": "u", "until": THEN}).banned_until_ms == THEN_MS
    assert event("user.banned", {"userId": "u"}).banned_until_ms == FOR_EVER_MS
    assert event("user.banned", {"userId": "u", "until": None}).banned_until_ms == FOR_EVER_MS
    assert event("user.banned", {"userId": "u", "until": "0001-01-01T00:00:00Z"}).banned_until_ms == 0


@pytest.mark.parametrize(
    ("type_", "data", "expected"),
    [
        ("user.revoked", {}, "data.userId: is missing"),
        ("user.banned", {"userId": " a"}, "data.userId: is not a user id, or is reserved"),
        ("user.banned", {"userId": "u", "until": "tomorrow"}, "data.until: is not an RFC 3339 time with an offset"),
        ("user.banned", {"userId": "u", "until": 5}, "data.until: "),
        ("user.updated", {"userId": "u"}, "type: user.updated needs the routing key user.updated"),
    ],
)
def test_malformed_revocation_event_is_refused_with_reason(type_: str, data: dict[str, Any], expected: str) -> None:
    with pytest.raises(Malformed) as malformed:
        event(type_, data)
    assert str(malformed.value).startswith(expected)


def test_revocation_refuses_older_tokens_only() -> None:
    revocation = apply(revoked(NOW_MS), None, 1)
    assert revocation == Revocation(user_id="u", version=1, issued_before_ms=NOW_MS)
    assert revocation.has_revoked(NOW_MS - 1)
    assert revocation.has_revoked(0)
    assert not revocation.has_revoked(NOW_MS)
    assert not revocation.is_banned(NOW_MS)


def test_ban_refuses_until_its_end() -> None:
    revocation = apply(banned(NOW_MS + 1000), None, 1)
    assert revocation.is_banned(NOW_MS + 999)
    assert not revocation.is_banned(NOW_MS + 1000)
    assert not revocation.has_revoked(1)
    assert apply(banned(FOR_EVER_MS), revocation, 2).is_banned(NOW_MS * 2)
    assert not apply(banned(NOW_MS - 1), revocation, 2).is_banned(NOW_MS)


def test_ban_and_revocation_are_independent() -> None:
    revocation = apply(revoked(NOW_MS), apply(banned(NOW_MS + 1000), None, 1), 2)
    assert revocation.is_banned(NOW_MS)
    assert revocation.has_revoked(NOW_MS - 1)


revocation_events = st.lists(st.integers(0, 10).map(revoked) | st.integers(0, 10).map(banned), min_size=1, max_size=6)


@given(revocation_events)
def test_repeated_events_give_same_revocation(given_events: list[RevocationEvent]) -> None:
    revocation: Revocation | None = None
    for version, one in enumerate([*given_events, *given_events], 1):
        revocation = apply(one, revocation, version)
        if version == len(given_events):
            once = revocation
    assert revocation is not None
    assert revocation.version == 2 * len(given_events)
    assert (revocation.issued_before_ms, revocation.banned_until_ms) == (once.issued_before_ms, once.banned_until_ms)
