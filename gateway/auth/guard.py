"""The door: a token is valid, and nothing stands against its user. The same for REST and sockets."""

from collections.abc import Awaitable, Callable

from gateway import metrics
from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import Identity
from gateway.auth.revocations import RevocationList
from shared.errors import Refusal
from shared.times import now_ms


class Guard:
    """Who may come in, by token and by standing."""

    def __init__(
        self,
        authenticator: Authenticator,
        revocations: RevocationList,
        refresh_keys: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._revocations = revocations
        self._refresh_keys = refresh_keys

    async def refresh_keys_for(self, token: str) -> None:
        """Before `admit`: wait for the token's key if it may have been published since. Raises Unavailable."""
        if self._refresh_keys is not None and self._authenticator.lacks_key(token):
            await self._refresh_keys()

    def authenticate(self, token: str) -> Identity:
        """The identity of a token. Raises UNAUTHORIZED, TOKEN_EXPIRED, or FORBIDDEN for a banned user."""
        try:
            identity = self._authenticator.verify(token)
            self.check(identity)
        except Refusal as refusal:
            metrics.AUTH_FAILURES.labels(refusal.code).inc()
            raise
        return identity

    def check(self, identity: Identity) -> None:
        """Raises UNAUTHORIZED for a token revoked since, FORBIDDEN for a banned user."""
        self._revocations.check(identity.caller, now_ms())
