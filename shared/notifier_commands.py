"""What gateways ask of notifier: queries on `notifier.query`. Pure."""

import msgspec

from shared.commands import Command, Wire


class OpenInbox(Command, frozen=True, kw_only=True, tag="inbox.open"):
    """The head of the caller's inbox, and what came after `since`. Reply: `InboxHead`."""

    since: int | None = None


class InboxHead(Wire, frozen=True, kw_only=True):
    """`frames[i]` has seq `first + i`; `recovered` is False when more was missed than is replayed (1,000)."""

    seq: int
    recovered: bool
    first: int
    frames: tuple[msgspec.Raw, ...]


class ReplayInbox(Command, frozen=True, kw_only=True, tag="inbox.replay"):
    """The caller's notifications with `after` < seq ≤ `through`, as finished frames. Reply: `Replay`."""

    after: int
    through: int


NotifierQueries = OpenInbox | ReplayInbox
