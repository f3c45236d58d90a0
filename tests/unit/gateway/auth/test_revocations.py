"""The revocation list: bans, revoked tokens, and versions."""

import pytest

from gateway.auth.revocations import RevocationList
from shared.commands.command import Caller
from shared.commands.notifier import Revocation
from shared.errors import ErrorCode, Refusal

NOW_MS = 1_800_000_000_000


def caller(issued_at_ms: int = NOW_MS - 10_000) -> Caller:
    return Caller(user_id="alice", issued_at_ms=issued_at_ms)


def refusal(revocations: RevocationList, who: Caller, now_ms: int = NOW_MS) -> ErrorCode | None:
    try:
        revocations.check(who, now_ms)
    except Refusal as refused:
        return refused.code
    return None


def test_user_without_record_is_accepted() -> None:
    assert refusal(RevocationList(), caller()) is None


def test_only_token_older_than_revocation_is_refused() -> None:
    revocations = RevocationList()
    assert revocations.learn(Revocation(user_id="alice", version=1, issued_before_ms=NOW_MS - 5_000))
    assert refusal(revocations, caller(NOW_MS - 10_000)) is ErrorCode.UNAUTHORIZED
    assert refusal(revocations, caller(0)) is ErrorCode.UNAUTHORIZED
    assert refusal(revocations, caller(NOW_MS - 1_000)) is None
    assert refusal(revocations, Caller(user_id="bob")) is None


def test_ban_refuses_every_token_until_it_ends() -> None:
    revocations = RevocationList()
    revocations.learn(Revocation(user_id="alice", version=1, banned_until_ms=NOW_MS + 1_000))
    assert refusal(revocations, caller(NOW_MS)) is ErrorCode.FORBIDDEN
    assert refusal(revocations, caller(NOW_MS), NOW_MS + 1_000) is None


@pytest.mark.parametrize("version", [1, 2])
def test_stale_or_repeated_record_changes_nothing(version: int) -> None:
    revocations = RevocationList()
    revocations.learn(Revocation(user_id="alice", version=2))
    assert not revocations.learn(Revocation(user_id="alice", version=version, banned_until_ms=NOW_MS + 1_000))
    assert refusal(revocations, caller()) is None
