"""One connection's protocol: frame and clock in, what to do out. Pure; the shell is `gateway.live.endpoint`.

NEW ── auth ──> OPEN ──> closed by the shell
 │ anything else but ping: UNAUTHORIZED, 4401
"""

from dataclasses import dataclass

from gateway.auth.identity import Identity
from gateway.settings import GatewaySettings
from shared.bus.delivery import community_channel
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import (
    Auth,
    ChatDirect,
    ChatSend,
    FrameRefused,
    Incoming,
    MarketTarget,
    Ping,
    Target,
    parse,
)
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import error_frame, pong_frame
from shared.protocol.validation import FrameId

BAD_FRAMES_MAX = 10
TICK_MAX_S = 10.0  # between two looks at a session, since the wall clock may be set
ABUSE_FACTOR = 10
ABUSE_WINDOW_S = 60.0
FRAMES_PER_WINDOW_MAX = 6_000  # of any kind; more where RATE_LIMIT_MESSAGES_PER_MINUTE asks for it


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this frame; `refused` is the code of an error."""

    frame: bytes
    refused: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Send `frame`, if any, and close."""

    code: int
    reason: str
    frame: bytes | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Verify the token, then call `Session.authenticated`."""

    request: Auth
    id: FrameId | None


@dataclass(frozen=True, slots=True)
class Perform:
    """Do what the client asks and answer it."""

    incoming: Incoming


Action = Answer | Close | Authenticate | Perform


class Window:
    """Counts what came in the last ABUSE_WINDOW_S, roughly: from the first after the window before."""

    __slots__ = ("_began_at_s", "_count")

    def __init__(self, now_s: float) -> None:
        self._began_at_s = now_s
        self._count = 0

    def count(self, now_s: float) -> int:
        """One more; returns how many there are."""
        if now_s - self._began_at_s > ABUSE_WINDOW_S:
            self._began_at_s, self._count = now_s, 0
        self._count += 1
        return self._count


class Session:
    """What a connection may do now. Times are seconds of one monotonic clock, unless they end in `_ms` (wall clock)."""

    __slots__ = (
        "_admitted",
        "_bad_frames",
        "_frames",
        "_frames_max",
        "_heard_at_s",
        "_opened_at_s",
        "_sent",
        "_sent_max",
        "_settings",
        "due_s",
        "id",
        "identity",
        "subscriptions",
        "symbols",
    )

    def __init__(self, session_id: str, settings: GatewaySettings, now_s: float) -> None:
        self.id = session_id
        self.identity: Identity | None = None
        self.subscriptions: set[str] = set()
        self._admitted: dict[str, None] = {}  # asked for, and not answered yet
        self.symbols: dict[str, float] = {}
        self._settings = settings
        self._opened_at_s = now_s
        self.due_s = now_s
        self._heard_at_s = now_s
        self._bad_frames = 0
        self._sent = Window(now_s)
        self._frames = Window(now_s)
        self._sent_max = ABUSE_FACTOR * settings.rate_limit_messages_per_minute
        self._frames_max = max(FRAMES_PER_WINDOW_MAX, 2 * self._sent_max)

    def taken(self, now_s: float) -> Close | None:
        """A frame came, of whatever kind: a sign of life, and work."""
        self._heard_at_s = now_s
        if self._frames.count(now_s) > self._frames_max:
            refusal = Refusal(ErrorCode.RATE_LIMITED, "too many frames")
            return Close(CloseCode.RATE_ABUSE, "too many frames", error_frame(refusal))
        return None

    def share_rate(self, other: "Session") -> None:
        """What abuses the rate is counted over all sockets of the user here."""
        self._sent = other._sent

    def receive(self, text: str, now_s: float) -> Action:
        """Decide on one text frame."""
        self._heard_at_s = now_s
        try:
            incoming = parse(text)
        except FrameRefused as refused:
            return self._refuse(refused)
        self._bad_frames = 0
        match incoming.request:
            case Ping():
                return Answer(pong_frame(incoming.id))
            case Auth() as request:
                return Authenticate(request, incoming.id)
            case _ if self.identity is None:
                return self._not_authenticated(incoming.name, incoming.id)
            case ChatSend() | ChatDirect() if self._abuses_the_rate(now_s):
                refusal = Refusal(ErrorCode.RATE_LIMITED, "too many messages while rate limited")
                return Close(
                    CloseCode.RATE_ABUSE, "rate limit abused", error_frame(refusal, incoming.name, incoming.id)
                )
            case _:
                return Perform(incoming)

    def authenticated(self, identity: Identity, id: FrameId | None = None) -> Close | None:
        """Take a verified token: the first opens the session, a later one renews it. Another user's closes it."""
        if self.identity is not None and self.identity.user_id != identity.user_id:
            refusal = Refusal(ErrorCode.FORBIDDEN, "the token is another user's")
            return Close(CloseCode.FORBIDDEN, "another user's token", error_frame(refusal, "auth", id))
        self.identity = identity
        self.due_s = 0.0  # the next tick finds out
        return None

    def turned_away(self, refusal: Refusal, request: str | None = None, id: FrameId | None = None) -> Close:
        """The token was refused (`request` is "auth"), or no longer counts."""
        code = CloseCode.FORBIDDEN if refusal.code is ErrorCode.FORBIDDEN else CloseCode.UNAUTHORIZED
        return Close(code, refusal.message, error_frame(refusal, request, id))

    def tick(self, now_s: float, now_ms: int) -> Close | None:
        """What time alone brings: silence, no auth, an expired token. Nothing of it before `due_s`."""
        if self.identity is None and now_s - self._opened_at_s > self._settings.auth_timeout_s:
            return Close(CloseCode.SILENT, "no auth in time")
        if now_s - self._heard_at_s > self._settings.connection_timeout_s:
            return Close(CloseCode.SILENT, "silent for too long")
        if self.identity is not None and self.identity.expires_at_ms <= now_ms:
            refusal = Refusal(ErrorCode.TOKEN_EXPIRED, "the token has expired")
            return Close(CloseCode.UNAUTHORIZED, "the token has expired", error_frame(refusal))
        left_s = [TICK_MAX_S, self._heard_at_s + self._settings.connection_timeout_s - now_s]
        if self.identity is None:
            left_s.append(self._opened_at_s + self._settings.auth_timeout_s - now_s)
        else:
            left_s.append((self.identity.expires_at_ms - now_ms) / 1000)
        self.due_s = now_s + min(left_s)
        return None

    def admit(self, target: Target, channel: str) -> None:
        """Count a subscription that is asked for. Raises TOO_MANY_SUBSCRIPTIONS; one that is there always passes."""
        if isinstance(target, MarketTarget):
            if len(self.symbols.keys() | set(target.symbols)) > self._settings.max_symbols:
                raise _too_many("symbols", self._settings.max_symbols)
            return
        counted = self.subscriptions | self._admitted.keys()
        if channel not in counted and len(counted) >= self._settings.max_subscriptions:
            raise _too_many("subscriptions", self._settings.max_subscriptions)
        self._admitted[channel] = None

    def answered(self, channel: str) -> None:
        """A subscription that was admitted has been answered, in whichever way."""
        self._admitted.pop(channel, None)

    def communities_lost(self) -> list[str]:
        """The communities that are subscribed to and that the token, renewed since, does not name."""
        allowed = None if self.identity is None else self.identity.communities
        if allowed is None:
            return []
        prefix = community_channel("")
        subscribed = [name.removeprefix(prefix) for name in sorted(self.subscriptions) if name.startswith(prefix)]
        return [community_id for community_id in subscribed if community_id not in allowed]

    def _refuse(self, refused: FrameRefused) -> Action:
        if self.identity is None:
            return self._not_authenticated(refused.name, refused.id)
        frame = error_frame(refused, refused.name, refused.id)
        if refused.code is ErrorCode.BAD_FRAME:
            self._bad_frames += 1
            if self._bad_frames >= BAD_FRAMES_MAX:
                return Close(CloseCode.BAD_FRAMES, f"{BAD_FRAMES_MAX} bad frames in a row", frame)
        else:
            self._bad_frames = 0
        return Answer(frame, refused.code)

    def _not_authenticated(self, name: str | None, id: FrameId | None) -> Close:
        refusal = Refusal(ErrorCode.UNAUTHORIZED, "authenticate first: send an auth frame with a token")
        return Close(CloseCode.UNAUTHORIZED, "not authenticated", error_frame(refusal, name, id))

    def _abuses_the_rate(self, now_s: float) -> bool:
        """Whether the sockets of this user here send more than ten times what the user may."""
        return self._sent.count(now_s) > self._sent_max


def _too_many(what: str, limit: int) -> Refusal:
    return Refusal(ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"at most {limit} {what} a connection")
