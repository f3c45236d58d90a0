"""Standings changed and told: on disk first, then to every gateway, then to the gateways where the user is."""

from collections.abc import Sequence

from notifier import metrics
from notifier.sending import Publisher, confirmed
from notifier.standing_store import StandingStore
from notifier.verdicts import Verdict, apply
from shared.encoding import to_json
from shared.notifier_commands import Standing
from shared.topology import CONTROL_CHANNEL, Delivery, DeliveryClass, user_channel

CHANGED = "standing"
REVOKE = "revoke"
BAN = "ban"


class Standings:
    """The writer of all standings: the active consumer of `notifier.events`."""

    def __init__(self, store: StandingStore, bus: Publisher) -> None:
        self._store = store
        self._bus = bus

    async def change(self, verdicts: Sequence[Verdict], now_ms: int) -> None:
        """Apply verdicts in order, and return when the broker has confirmed that gateways are told.

        Done again it tells the same again, with higher versions. Raises Conflict and Unavailable.
        """
        if not verdicts:
            return
        standings = await self._store.standings({verdict.user_id for verdict in verdicts})
        # The clock keeps versions growing when the highest has expired; the highest, when the clock was set back.
        version = max(now_ms, await self._store.highest_version() + 1)
        for offset, verdict in enumerate(verdicts):
            standings[verdict.user_id] = apply(verdict, standings.get(verdict.user_id), version + offset)
        changed = list(standings.values())
        await self._store.put(changed, now_ms)
        # A socket that its gateway closes must find the door shut when it comes back, at whichever gateway.
        await confirmed(self._bus, [_control(CONTROL_CHANNEL, CHANGED, standing) for standing in changed])
        closings = [(verdict, key) for verdict in verdicts if (key := _closing(verdict, now_ms)) is not None]
        await confirmed(
            self._bus,
            [_control(user_channel(verdict.user_id), key, standings[verdict.user_id]) for verdict, key in closings],
        )
        metrics.STANDINGS_CHANGED.inc(len(changed))


def _closing(verdict: Verdict, now_ms: int) -> str | None:
    """The key that closes the user's sockets; None if the verdict ends a ban."""
    if verdict.banned_until_ms is None:
        return REVOKE
    return BAN if verdict.banned_until_ms > now_ms else None


def _control(channel: str, key: str, standing: Standing) -> Delivery:
    return Delivery(channel, DeliveryClass.CONTROL, 0, key, to_json(standing))
