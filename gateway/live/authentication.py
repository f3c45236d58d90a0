"""Authentication of sockets: the `auth` frame, and revocations of open sockets."""

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import Identity
from gateway.fanout.membership import ChannelMembership
from gateway.live.connection_limit import ConnectionLimit, too_many_connections
from gateway.live.connections import Connections
from gateway.live.presence import Roster
from gateway.live.session import Close
from gateway.live.socket import Socket
from gateway.settings import GatewaySettings
from shared.bus.delivery import user_channel
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.protocol.client_frames import Auth
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import AuthOkData, error_frame, frame
from shared.protocol.validation import FrameId
from shared.times import now_ms, to_iso

SUBSCRIPTIONS_IN_AUTH_MAX = 200


class Authentication:
    """Authenticates sockets. The first token opens a socket's session, later ones renew it."""

    def __init__(
        self,
        settings: GatewaySettings,
        authenticator: Authenticator,
        membership: ChannelMembership,
        connections: Connections,
        connection_limit: ConnectionLimit,
        roster: Roster,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._membership = membership
        self._connections = connections
        self._connection_limit = connection_limit
        self._roster = roster

    async def authenticate(self, socket: Socket, request: Auth, id: FrameId | None) -> bool:
        """Handle an `auth` frame and answer it. Return whether it authenticated the socket.

        Close the socket if the token is refused. If it cannot be verified now, an open session continues with its
        earlier token. Too many subscriptions: answer VALIDATION; the socket stays open, authenticated or not.
        """
        session = socket.session
        if len(request.subscriptions) > SUBSCRIPTIONS_IN_AUTH_MAX:
            refusal = Refusal.invalid("subscriptions", f"at most {SUBSCRIPTIONS_IN_AUTH_MAX}")
            socket.send(error_frame(refusal, "auth", id))
            return False
        try:
            identity = await self._verify(socket, request)
        except Refusal as refusal:
            socket.close(session.auth_failed(refusal, "auth", id))
            return False
        except Unavailable as error:
            self._refuse_for_now(socket, error, id)
            return False
        if identity is None:
            return False
        is_first = session.identity is None
        if (close := session.authenticated(identity, id)) is not None:
            socket.close(close)
            return False
        self._connections.tick_soon(socket)
        if is_first and not await self._begin_session(socket, identity.user_id, id):
            return False
        socket.send(frame("auth:ok", self._welcome(socket, identity), id))
        return True

    async def _verify(self, socket: Socket, request: Auth) -> Identity | None:
        """Return the token's identity; None if the socket closed meanwhile. Raises Refusal or Unavailable."""
        await self._authenticator.refresh_keys_for(request.token)
        if socket.closing:
            return None
        identity = self._authenticator.authenticate(request.token)
        if socket.session.identity is None and await self._connection_limit.query_others(identity.user_id):
            if socket.closing:
                return None
            identity = self._authenticator.authenticate(
                request.token
            )  # the token may have been revoked during the wait
        return identity

    async def _begin_session(self, socket: Socket, user_id: str, id: FrameId | None) -> bool:
        """Count the socket for its user, and join the user's own channel, which needs no subscription."""
        if not self._connection_limit.may_open(user_id):
            socket.close(too_many_connections(id))
            return False
        if (other := next(iter(self._connections.by_user.get(user_id, ())), None)) is not None:
            socket.session.share_rate(other.session)
        self._connections.identify(socket, user_id)
        try:
            channel = await self._membership.join(socket, user_channel(user_id))
        except Unavailable as error:
            self._refuse_for_now(socket, error, id)
            return False
        channel.go_live_unordered(socket)
        self._roster.opened(user_id)
        socket.is_authenticated = True
        self._connection_limit.note_opened(user_id)
        return True

    def _welcome(self, socket: Socket, identity: Identity) -> AuthOkData:
        settings = self._settings
        return AuthOkData(
            user_id=identity.user_id,
            session_id=socket.session_id,
            server_time=to_iso(now_ms()),
            expires_at=to_iso(identity.expires_at_ms),
            heartbeat_interval=round(settings.heartbeat_interval_s * 1000),
            connection_timeout=round(settings.connection_timeout_s * 1000),
            max_message_bytes=settings.max_message_bytes,
        )

    def _refuse_for_now(self, socket: Socket, error: Unavailable, id: FrameId | None) -> None:
        """Answer UNAVAILABLE. Close the socket unless it has an earlier, still valid token."""
        answer = error_frame(Refusal(ErrorCode.UNAVAILABLE, str(error)), "auth", id)
        if socket.is_authenticated:
            socket.send(answer)
        else:
            socket.close(Close(CloseCode.OVERLOADED, "not ready", answer))

    def enforce_revocation(self, user_id: str) -> None:
        """Close the user's sockets whose tokens are revoked."""
        for socket in list(self._connections.by_user.get(user_id, ())):
            identity = socket.session.identity
            if identity is not None:
                try:
                    self._authenticator.check(identity)
                except Refusal as refusal:
                    socket.close(socket.session.auth_failed(refusal))

    def forget(self, socket: Socket, now_s: float) -> None:
        """Remove a closed socket from its user's count."""
        self._connections.remove(socket)
        if socket.user_id:
            self._connection_limit.note_closed(socket.user_id)
        if socket.is_authenticated:
            self._roster.closed(socket.user_id, now_s)
