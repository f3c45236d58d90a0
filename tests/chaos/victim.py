"""A device whose user is removed from rooms or banned, and keeps trying."""

from typing import Any

from tests.chaos.client import ChaosClient, Frame

BANNED_CLOSE = 4403
RETRY_BANNED_S = 1.0


class ExcludedClient(ChaosClient):
    """Expects refusals in a room once its removal is requested, and everywhere once it is banned."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.is_banned = False
        self._expelled: dict[str, int | None] = {}  # by channel: the connection at the confirmation

    @property
    def channels(self) -> list[str]:
        """Return the channels that it still has a right to."""
        return [] if self.is_banned else [one for one in super().channels if one not in self._expelled]

    def expect_removal(self, room_id: str) -> None:
        """Record that the removal from a room is requested."""
        self._expelled.setdefault(f"room:{room_id}", None)

    def note_removal(self, room_id: str) -> None:
        """Record that the removal is confirmed: a later connection may not subscribe to the room."""
        self._expelled[f"room:{room_id}"] = self._connections

    def expect_ban(self) -> None:
        """Record that the ban is about to be published."""
        self.is_banned = True

    def _is_expected(self, close_code: int | None) -> bool:
        if close_code == BANNED_CLOSE and self.is_banned:
            self._drain_s = RETRY_BANNED_S
            return True
        return super()._is_expected(close_code)

    def _subscribed(self, channel: str, data: Frame, now_s: float) -> None:
        confirmed = self._expelled.get(channel)
        if confirmed is not None and self._connections > confirmed:
            self._ledger.note_failure("subscribed after its removal", channel=channel, listener=self.name)
        super()._subscribed(channel, data, now_s)

    def _refused(self, id_: str, data: Frame, now_s: float) -> None:
        channel, _, key = id_.partition(" ")
        if data["retryable"] or not (self.is_banned or channel in self._expelled):
            super()._refused(id_, data, now_s)
            return
        self._once.discard(key)
        self._pending.pop(channel, None)
        if self.unacked.pop(key, None) is not None:
            del self._due[key]
            del self._sent_s[key]
