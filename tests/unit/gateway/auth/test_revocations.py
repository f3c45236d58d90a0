"""Standings: who may not come in, and since which version."""

import pytest

from gateway.auth.revocations import RevocationList
from shared.commands.command import Caller
from shared.commands.notifier import Revocation
from shared.errors import ErrorCode, Refusal

NOW_MS = 1_800_000_000_000


def caller(issued_at_ms: int = NOW_MS - 10_000) -> Caller:
    return Caller(user_id="alice", issued_at_ms=issued_at_ms)


def refusal(standings: RevocationList, who: Caller, now_ms: int = NOW_MS) -> ErrorCode | None:
    try:
        standings.check(who, now_ms)
    except Refusal as refused:
        return refused.code
    return None


def test_nobody_is_refused_without_a_standing() -> None:
    assert refusal(RevocationList(), caller()) is None


def test_token_older_than_its_revocation_is_refused_and_a_newer_one_is_not() -> None:
    standings = RevocationList()
    assert standings.learn(Revocation(user_id="alice", version=1, issued_before_ms=NOW_MS - 5_000))
    assert refusal(standings, caller(NOW_MS - 10_000)) is ErrorCode.UNAUTHORIZED
    assert refusal(standings, caller(0)) is ErrorCode.UNAUTHORIZED
    assert refusal(standings, caller(NOW_MS - 1_000)) is None
    assert refusal(standings, Caller(user_id="bob")) is None


def test_ban_holds_for_every_token_until_it_ends() -> None:
    standings = RevocationList()
    standings.learn(Revocation(user_id="alice", version=1, banned_until_ms=NOW_MS + 1_000))
    assert refusal(standings, caller(NOW_MS)) is ErrorCode.FORBIDDEN
    assert refusal(standings, caller(NOW_MS), NOW_MS + 1_000) is None


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_heard_late_or_twice_changes_nothing(version: int) -> None:
    standings = RevocationList()
    standings.learn(Revocation(user_id="alice", version=2))
    assert not standings.learn(Revocation(user_id="alice", version=version, banned_until_ms=NOW_MS + 1_000))
    assert refusal(standings, caller()) is None
