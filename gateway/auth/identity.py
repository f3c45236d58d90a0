"""The identity that a verified token proves. Pure; `gateway.auth.token_verifier` creates it."""

import msgspec

from shared.commands.command import Caller


class Identity(msgspec.Struct, frozen=True):
    """The claims of a verified token. `communities` is None for a token that may join any community."""

    caller: Caller
    expires_at_ms: int
    communities: frozenset[str] | None

    @property
    def user_id(self) -> str:
        """Return the token's subject."""
        return self.caller.user_id
