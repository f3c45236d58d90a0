"""The revocation list: bans, revoked tokens, and versions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from gateway.auth import revocations
from gateway.auth.revocations import RevocationList, RevocationListSync
from gateway.backend import Backend
from shared.commands.command import Caller
from shared.commands.notifier import ListRevocations, Revocation, RevocationPage
from shared.errors import ErrorCode, Refusal, Unavailable
from tests.support.waiting import until

NOW_MS = 1_800_000_000_000


def caller(issued_at_ms: int = NOW_MS - 10_000) -> Caller:
    return Caller(user_id="alice", issued_at_ms=issued_at_ms)


def refusal(known: RevocationList, who: Caller, now_ms: int = NOW_MS) -> ErrorCode | None:
    try:
        known.check(who, now_ms)
    except Refusal as refused:
        return refused.code
    return None


def test_user_without_record_is_accepted() -> None:
    assert refusal(RevocationList(), caller()) is None


def test_only_token_older_than_revocation_is_refused() -> None:
    known = RevocationList()
    assert known.learn(Revocation(user_id="alice", version=1, issued_before_ms=NOW_MS - 5_000))
    assert refusal(known, caller(NOW_MS - 10_000)) is ErrorCode.UNAUTHORIZED
    assert refusal(known, caller(0)) is ErrorCode.UNAUTHORIZED
    assert refusal(known, caller(NOW_MS - 1_000)) is None
    assert refusal(known, Caller(user_id="bob")) is None


def test_ban_refuses_every_token_until_it_ends() -> None:
    known = RevocationList()
    known.learn(Revocation(user_id="alice", version=1, banned_until_ms=NOW_MS + 1_000))
    assert refusal(known, caller(NOW_MS)) is ErrorCode.FORBIDDEN
    assert refusal(known, caller(NOW_MS), NOW_MS + 1_000) is None


@pytest.mark.parametrize("version", [1, 2])
def test_stale_or_repeated_record_changes_nothing(version: int) -> None:
    known = RevocationList()
    known.learn(Revocation(user_id="alice", version=2))
    assert not known.learn(Revocation(user_id="alice", version=version, banned_until_ms=NOW_MS + 1_000))
    assert refusal(known, caller()) is None


class Notifier:
    """Answers with the revocations after a version, two at a time, or fails."""

    def __init__(self) -> None:
        self.stored: list[Revocation] = []
        self.is_available = True

    def request_fields(self, caller: Caller) -> dict[str, Any]:
        return {"id": "cmd_1", "deadline_ms": NOW_MS, "caller": caller}

    async def notifier_request(self, query: ListRevocations, _: type[RevocationPage]) -> RevocationPage:
        if not self.is_available:
            raise Unavailable("the notifier is down")
        found = [one for one in self.stored if one.version > query.after]
        return RevocationPage(items=tuple(found[:2]), more=len(found) > 2)


class Synced:
    """A running `RevocationListSync`."""

    def __init__(self) -> None:
        self.notifier, self.revocations = Notifier(), RevocationList()
        self.learned: list[int] = []
        self.sync = RevocationListSync(
            self.revocations, cast(Backend, self.notifier), lambda record: self.learned.append(record.version)
        )


@pytest.fixture
async def synced(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Synced]:
    monkeypatch.setattr(revocations, "RETRY_FIRST_S", 0.001)
    synced = Synced()
    running = asyncio.create_task(synced.sync.run())
    await synced.sync.loaded()
    yield synced
    running.cancel()


async def test_change_whose_line_was_lost_is_learned_all_the_same(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "REFRESH_S", 0.01)
    synced.sync.lines_lost()  # so that the short interval begins now
    await synced.sync.loaded()
    synced.notifier.stored = [Revocation(user_id=f"u{number}", version=number) for number in range(1, 6)]
    await until(lambda: synced.learned == [1, 2, 3, 4, 5])


async def test_loaded_waits_until_a_load_after_the_loss_has_succeeded(synced: Synced) -> None:
    synced.notifier.is_available = False
    synced.notifier.stored = [Revocation(user_id="alice", version=7)]
    synced.sync.lines_lost()
    waiting = asyncio.create_task(synced.sync.loaded())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    synced.notifier.is_available = True
    await waiting
    assert synced.learned == [7]


async def test_silent_notifier_holds_the_gateway_until_it_answers(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "COMPLAIN_S", 0.01)
    synced.notifier.is_available = False
    synced.sync.lines_lost()
    waiting = asyncio.create_task(synced.sync.loaded())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    synced.notifier.is_available = True
    await waiting


async def test_list_is_replaced_after_a_restore(synced: Synced) -> None:
    synced.notifier.stored = [banned("alice", 8), banned("bob", 9)]
    synced.sync.lines_lost()
    await synced.sync.loaded()
    synced.notifier.is_available = False
    synced.notifier.stored = [banned("alice", 3), banned("carl", 4)]
    synced.sync.start_over()
    synced.sync.learn(banned("dora", 5))
    assert who_is_banned(synced) == {"alice", "bob", "dora"}  # the earlier records hold until the load
    synced.notifier.is_available = True
    await synced.sync.loaded()
    assert who_is_banned(synced) == {"alice", "carl", "dora"}
    synced.notifier.stored.append(banned("emil", 6))  # versions below the earlier ones count
    synced.sync.lines_lost()
    await synced.sync.loaded()
    assert "emil" in who_is_banned(synced)


def banned(user_id: str, version: int) -> Revocation:
    return Revocation(user_id=user_id, version=version, banned_until_ms=NOW_MS + 1_000)


def who_is_banned(synced: Synced) -> set[str]:
    names = ("alice", "bob", "carl", "dora", "emil")
    return {name for name in names if refusal(synced.revocations, Caller(user_id=name)) is ErrorCode.FORBIDDEN}
