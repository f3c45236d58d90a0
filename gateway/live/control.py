"""Control deliveries: instructions of chat_service, notifier and other gateways to this gateway."""

import msgspec

from gateway.auth.revocations import RevocationListSync
from gateway.fanout.membership import ChannelMembership
from gateway.fanout.recovery import Recovery
from gateway.live.connection_limit import ConnectionLimit
from gateway.live.subscriptions import Subscriptions
from shared.bus.delivery import ChannelKind, ChannelName, ControlKind, Delivery, Eviction
from shared.commands.notifier import Revocation
from shared.errors import Malformed
from shared.telemetry import logs

log = logs.get(__name__)

_eviction = msgspec.json.Decoder(Eviction)
_revocation = msgspec.json.Decoder(Revocation)


class ControlDispatcher:
    """Dispatches each control delivery by its `ControlKind` and its channel."""

    def __init__(
        self,
        membership: ChannelMembership,
        recovery: Recovery,
        subscriptions: Subscriptions,
        connection_limit: ConnectionLimit,
        revocations: RevocationListSync,
    ) -> None:
        self._membership = membership
        self._recovery = recovery
        self._subscriptions = subscriptions
        self._connection_limit = connection_limit
        self._revocations = revocations

    def dispatch(self, delivery: Delivery) -> None:
        """Dispatch one control delivery. Raises msgspec.DecodeError for a malformed frame.

        A kind that this release does not know is logged and ignored.
        """
        try:
            kind, channel = ControlKind(delivery.key), ChannelName.parse(delivery.channel)
        except (ValueError, Malformed):
            log.error("unknown_control", key=delivery.key)
            return
        match kind, channel:
            case ControlKind.EVICT, ChannelName(ChannelKind.ROOM, room_id):
                eviction = _eviction.decode(delivery.frame)
                self._membership.evict(room_id, eviction.user_id, delivery.position, eviction.reason)
            case ControlKind.EVICT, ChannelName(ChannelKind.USER):
                self._membership.notify_removed(_eviction.decode(delivery.frame), delivery.position)
            case ControlKind.RECHECK, ChannelName(ChannelKind.ROOM, room_id):
                self._recovery.recheck(room_id)
            case ControlKind.MEMBERSHIP, ChannelName(ChannelKind.USER):
                pass  # for sockets on activity; see `gateway.fanout.activity_lines`
            case ControlKind.ROOM_DELETED, ChannelName(ChannelKind.ROOM, room_id):
                self._subscriptions.close_room(room_id)
            case ControlKind.CONNECTION_COUNT, ChannelName(ChannelKind.USER, user_id):
                self._connection_limit.observe(user_id, delivery.frame)
            case ControlKind.REVOCATION, ChannelName(ChannelKind.CONTROL):
                self._revocations.learn(_revocation.decode(delivery.frame))
            case _:
                log.error("misplaced_control", key=delivery.key, channel_kind=channel.kind)
