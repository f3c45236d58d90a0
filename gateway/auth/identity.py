"""Who a connection belongs to, once its token is verified. Pure; `gateway.auth.authenticator` makes it."""

import msgspec

from shared.commands.command import Caller


class Identity(msgspec.Struct, frozen=True):
    """A verified token. `communities` None means: any."""

    caller: Caller
    expires_at_ms: int
    communities: frozenset[str] | None

    @property
    def user_id(self) -> str:
        """The token's subject."""
        return self.caller.user_id
