"""Channel names in parts."""

import pytest

from shared.bus import delivery
from shared.bus.delivery import ChannelKind, ChannelName
from shared.errors import Malformed


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (delivery.room_channel("room_1"), ChannelName(ChannelKind.ROOM, "room_1")),
        (delivery.user_channel("ann:1"), ChannelName(ChannelKind.USER, "ann:1")),
        (delivery.inbox_channel("ann"), ChannelName(ChannelKind.INBOX, "ann")),
        (delivery.market_channel("EUR/USD"), ChannelName(ChannelKind.MARKET, "EUR/USD")),
        (delivery.community_channel("gold"), ChannelName(ChannelKind.COMMUNITY, "gold")),
        (delivery.ALL_CHANNEL, ChannelName(ChannelKind.ALL)),
        (delivery.CONTROL_CHANNEL, ChannelName(ChannelKind.CONTROL)),
    ],
)
def test_name_survives_a_round_trip(text: str, name: ChannelName) -> None:
    assert ChannelName.parse(text) == name
    assert str(name) == text


@pytest.mark.parametrize("text", ["", "rooms:1", ":1"])
def test_unknown_kind_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        ChannelName.parse(text)
