"""The protocol of one connection: frames and the clock in, actions out. Pure; the shell is `gateway.live.endpoint`.

NEW ── auth ──> OPEN ── auth: the token is renewed
 │               └── bad frames, abuse, silence, an expired token: Close
 └── any other frame but ping: UNAUTHORIZED, 4401
"""

from dataclasses import dataclass

from gateway.auth.identity import Identity
from gateway.settings import GatewaySettings
from shared.bus.delivery import ChannelKind, ChannelName
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
ABUSE_FACTOR = 10
ABUSE_WINDOW_S = 60.0
FRAMES_PER_WINDOW_MAX = 6_000  # of any kind; raised for a higher RATE_LIMIT_MESSAGES_PER_MINUTE


@dataclass(frozen=True, slots=True)
class Answer:
    """Send a frame: a pong, or an error with the code `refused`."""

    frame: bytes
    refused: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Send `frame`, if there is one, and close."""

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
    """Perform the client's request, and answer it."""

    incoming: Incoming


Action = Answer | Close | Authenticate | Perform


class Window:
    """Counts frames in windows of ABUSE_WINDOW_S. The first frame after the end of a window begins the next one."""

    __slots__ = ("_began_at_s", "_count")

    def __init__(self, now_s: float) -> None:
        self._began_at_s = now_s
        self._count = 0

    def count(self, now_s: float) -> int:
        """Count one more frame, and return the count."""
        if now_s - self._began_at_s > ABUSE_WINDOW_S:
            self._began_at_s, self._count = now_s, 0
        self._count += 1
        return self._count


class Session:
    """The state of one connection. Times in seconds are monotonic, times in ms are wall clock."""

    __slots__ = (
        "_bad_frames",
        "_frames",
        "_frames_max",
        "_opened_at_s",
        "_received_at_s",
        "_reserved",
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
        self._reserved: dict[str, None] = {}  # channels whose subscription is in progress
        self.symbols: dict[str, float] = {}
        self._settings = settings
        self._opened_at_s = now_s
        self.due_s = now_s  # no tick is needed before this time
        self._received_at_s = now_s
        self._bad_frames = 0
        self._sent = Window(now_s)
        self._frames = Window(now_s)
        self._sent_max = ABUSE_FACTOR * settings.rate_limit_messages_per_minute
        self._frames_max = max(FRAMES_PER_WINDOW_MAX, 2 * self._sent_max)

    def frame_received(self, now_s: float) -> Close | None:
        """Count a frame of any kind towards the silence timeout and the abuse limit."""
        self._received_at_s = now_s
        return self.fragment_received(now_s)

    def fragment_received(self, now_s: float) -> Close | None:
        """Count a fragment towards the abuse limit only.

        A client that sends nothing but fragments still times out as silent.
        """
        if self._frames.count(now_s) > self._frames_max:
            refusal = Refusal(ErrorCode.RATE_LIMITED, "too many frames")
            return Close(CloseCode.RATE_ABUSE, "too many frames", error_frame(refusal))
        return None

    def share_rate(self, other: "Session") -> None:
        """Share the message count with another session: the abuse limit covers all sockets of the user here."""
        self._sent = other._sent

    def receive(self, text: str, now_s: float) -> Action:
        """Decide on one text frame."""
        self._received_at_s = now_s
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
        """Apply a verified token: the first opens the session, later ones renew it, another user's closes it."""
        if self.identity is not None and self.identity.user_id != identity.user_id:
            refusal = Refusal(ErrorCode.FORBIDDEN, "the token belongs to another user")
            return Close(CloseCode.FORBIDDEN, "another user's token", error_frame(refusal, "auth", id))
        self.identity = identity
        self.due_s = 0.0  # the caller schedules a tick, which computes it
        return None

    def auth_failed(self, refusal: Refusal, request: str | None = None, id: FrameId | None = None) -> Close:
        """Return the `Close` action for a token that was refused (`request` is "auth") or revoked."""
        code = CloseCode.FORBIDDEN if refusal.code is ErrorCode.FORBIDDEN else CloseCode.UNAUTHORIZED
        return Close(code, refusal.message, error_frame(refusal, request, id))

    def tick(self, now_s: float, now_ms: int) -> Close | None:
        """Return the `Close` action for silence, a missing `auth` or an expired token; otherwise set `due_s`.

        `due_s` is valid until the wall clock is stepped.
        """
        if self.identity is None and now_s - self._opened_at_s > self._settings.auth_timeout_s:
            return Close(CloseCode.SILENT, "no auth in time")
        if now_s - self._received_at_s > self._settings.connection_timeout_s:
            return Close(CloseCode.SILENT, "silent for too long")
        if self.identity is not None and self.identity.expires_at_ms <= now_ms:
            refusal = Refusal(ErrorCode.TOKEN_EXPIRED, "the token has expired")
            return Close(CloseCode.UNAUTHORIZED, "the token has expired", error_frame(refusal))
        left_s = [self._received_at_s + self._settings.connection_timeout_s - now_s]
        if self.identity is None:
            left_s.append(self._opened_at_s + self._settings.auth_timeout_s - now_s)
        else:
            left_s.append((self.identity.expires_at_ms - now_ms) / 1000)
        self.due_s = now_s + min(left_s)
        return None

    def reserve(self, target: Target, channel: str) -> None:
        """Count a subscription in progress. Raises TOO_MANY_SUBSCRIPTIONS.

        A channel already subscribed or reserved always passes.
        """
        if isinstance(target, MarketTarget):
            if len(self.symbols.keys() | set(target.symbols)) > self._settings.max_symbols:
                raise _too_many("symbols", self._settings.max_symbols)
            return
        counted = self.subscriptions | self._reserved.keys()
        if channel not in counted and len(counted) >= self._settings.max_subscriptions:
            raise _too_many("subscriptions", self._settings.max_subscriptions)
        self._reserved[channel] = None

    def release(self, channel: str) -> None:
        """End the reservation of a subscription once it is answered, successfully or not."""
        self._reserved.pop(channel, None)

    def revoked_communities(self) -> list[str]:
        """Return the subscribed communities that the renewed token no longer names."""
        allowed = None if self.identity is None else self.identity.communities
        if allowed is None:
            return []
        channels = map(ChannelName.parse, sorted(self.subscriptions))
        return [name.key for name in channels if name.kind is ChannelKind.COMMUNITY and name.key not in allowed]

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
        """Count a message. Return whether the user's sockets here exceed ten times the allowed rate."""
        return self._sent.count(now_s) > self._sent_max


def _too_many(what: str, limit: int) -> Refusal:
    return Refusal(ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"at most {limit} {what} per connection")
