"""Lines about memberships."""

import msgspec
import pytest

from chat_service.rooms.log import EntryKind, MemberEffect
from chat_service.rooms.membership_deliveries import membership_deliveries
from shared.bus.delivery import DeliveryKind, MembershipChange, user_channel
from tests.support.log_entries import message_at

JOINED = MemberEffect(user_id="ben", is_joined=True, is_invited=True)
REMOVED = MemberEffect(user_id="cat")


@pytest.mark.parametrize("kind", [EntryKind.MESSAGE, EntryKind.CREATED, EntryKind.REMOVED])
def test_users_hear_on_their_channels_that_their_membership_changed(kind: EntryKind) -> None:
    entry = msgspec.structs.replace(message_at(7, "m"), kind=kind, members=(JOINED, REMOVED))
    deliveries = membership_deliveries(entry, None)
    assert [(item.channel, item.kind, item.position, item.key) for item in deliveries] == [
        (user_channel(user_id), DeliveryKind.CONTROL, 7, "membership") for user_id in ("ben", "cat")
    ]
    changes = [msgspec.json.decode(item.frame, type=MembershipChange) for item in deliveries]
    assert changes == [MembershipChange(chatroom_id="r", is_joined=True), MembershipChange("r", is_joined=False)]


def test_plain_message_and_direct_room_have_none() -> None:
    assert membership_deliveries(message_at(7, "m"), None) == []
    created = msgspec.structs.replace(message_at(1, "m"), members=(JOINED,))
    assert membership_deliveries(created, ("ann", "ben")) == []
