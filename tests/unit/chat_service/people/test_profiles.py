"""Profiles from `user.updated`: absent fields stay, null ones are cleared, long ones harm no other."""

from typing import Any

import pytest

from chat_service.people.profile_store import StoredProfile
from chat_service.people.profiles import read_update
from shared.protocol.server_frames import UserProfile
from tests.support.events import cloud_event

NOW_MS = 1_790_000_000_000
CLAIMS = UserProfile(first_name="Claimed", last_name="Name", avatar="https://a.example/claimed.png")
OLD = {"firstName": "Ada", "lastName": "Lovelace", "avatar": "https://a.example/old.png"}


def shown_after(*updates: dict[str, Any]) -> UserProfile:
    profile = StoredProfile()
    for number, data in enumerate(updates):
        update = read_update(cloud_event(f"e{number}", "user.updated", {"userId": "ada", **data}), NOW_MS)
        assert update is not None
        profile = profile.updated(update.stored)
    return profile.overlaid_on(CLAIMS)


def test_null_clears_and_absence_keeps() -> None:
    cleared = shown_after(OLD, {"avatar": None, "lastName": None})
    assert cleared == UserProfile(first_name="Ada", last_name="", avatar=None)
    assert shown_after(OLD, {"avatar": None}, {"firstName": "Augusta"}).avatar is None
    assert shown_after(OLD, {}) == UserProfile(first_name="Ada", last_name="Lovelace", avatar=OLD["avatar"])
    assert shown_after({}) == CLAIMS


@pytest.mark.parametrize("avatar", ["", "https://a.example/" + "x" * 2000])
def test_picture_that_cannot_be_shown_loses_no_name(avatar: str) -> None:
    assert shown_after({"firstName": "x" * 300, "avatar": avatar}) == UserProfile(
        first_name="x" * 200, last_name="Name", avatar=None
    )


def test_profile_stored_earlier_keeps_its_meaning() -> None:
    stored = StoredProfile(first_name="Ada", avatar=None, updated_at_ms=NOW_MS)  # null: no event set it
    assert stored.overlaid_on(CLAIMS).avatar == CLAIMS.avatar
