"""Authentication for REST and WebSocket: verifies a token and checks it against revocations and bans."""

from collections.abc import Awaitable, Callable

from gateway import metrics
from gateway.auth.identity import Identity
from gateway.auth.revocations import RevocationList
from gateway.auth.token_verifier import TokenVerifier
from shared.errors import Refusal
from shared.times import now_ms


class Authenticator:
    """Authenticates tokens. `refresh_keys` fetches an issuer's published keys and is None when no URL is configured."""

    def __init__(
        self,
        verifier: TokenVerifier,
        revocations: RevocationList,
        refresh_keys: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._refresh_keys = refresh_keys

    async def refresh_keys_for(self, token: str) -> None:
        """Fetch the issuer's keys if the token names an unknown key. Raises Unavailable."""
        if self._refresh_keys is not None and self._verifier.lacks_key(token):
            await self._refresh_keys()

    def authenticate(self, token: str) -> Identity:
        """Return the identity of a token.

        Raises UNAUTHORIZED for an invalid or revoked token, TOKEN_EXPIRED, or FORBIDDEN for a banned user. Call
        `refresh_keys_for` first.
        """
        try:
            identity = self._verifier.verify(token)
            self.check(identity)
        except Refusal as refusal:
            metrics.AUTH_FAILURES.labels(refusal.code).inc()
            raise
        return identity

    def check(self, identity: Identity) -> None:
        """Raise UNAUTHORIZED if a verified token has been revoked, FORBIDDEN if the user is banned."""
        self._revocations.check(identity.caller, now_ms())
