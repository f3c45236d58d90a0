"""Lines that announce membership changes to gateways, for sockets on `activity`. Pure.

A line goes to the channel of the user. Every gateway with a socket of the user receives it, regardless of the rooms
that the gateway follows.
"""

from chat_service.rooms.log import LogEntry
from shared.bus.delivery import ControlKind, Delivery, DeliveryKind, MembershipChange, user_channel
from shared.encoding import to_json


def membership_deliveries(entry: LogEntry, direct: tuple[str, str] | None) -> list[Delivery]:
    """Return a delivery for each membership that an entry starts or ends, or whose role it changes.

    Direct rooms need none: the message implies the membership.
    """
    if direct is not None:
        return []
    return [_line(entry, effect.user_id, is_joined=effect.is_joined) for effect in entry.members]


def membership_checks(entry: LogEntry) -> list[Delivery]:
    """Return deliveries that make gateways query the current membership of every user whom an entry concerned.

    They claim `is_joined` for every user whose membership the entry changed, even one who left: a gateway queries the
    counts of a user who joined, and learns from the answer whether the user is a member now.
    """
    return [_line(entry, effect.user_id, is_joined=True) for effect in entry.members]


def _line(entry: LogEntry, user_id: str, *, is_joined: bool) -> Delivery:
    change = MembershipChange(chatroom_id=entry.room_id, is_joined=is_joined)
    kind = ControlKind.MEMBERSHIP
    return Delivery(user_channel(user_id), DeliveryKind.CONTROL, entry.rev, kind, to_json(change))
