"""The parts of a message beyond its text, as clients send them and as messages show them. Pure."""

from typing import Annotated, Literal

import msgspec

from shared.protocol.validation import Id, Symbol, UserId
from shared.protocol.wire_struct import WireStruct

MENTIONS_MAX = 20
ATTACHMENTS_MAX = 10
SYMBOLS_MAX = 10
EXCERPT_MAX = 200  # code points of a message that a reply or a notification shows
URL_MAX = 2_000
# https, a host without user info, and no white space or control character anywhere.
HTTPS_URL_PATTERN = r"^(?i:https)://[^\s\x00-\x1f\x7f/?#@\\]+(?:[/?#][^\s\x00-\x1f\x7f]*)?\Z"

HttpsUrl = Annotated[str, msgspec.Meta(max_length=URL_MAX, pattern=HTTPS_URL_PATTERN, description="an https URL")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Mentions = Annotated[tuple[UserId, ...], msgspec.Meta(max_length=MENTIONS_MAX)]


class Attachment(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture, file, link or chart under its URL. The size in pixels or bytes is as the sender stated it."""

    kind: Literal["image", "file", "link", "chart"]
    url: HttpsUrl
    name: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    content_type: Annotated[str, msgspec.Meta(max_length=127)] | None = None
    size_bytes: Positive | None = None
    width: Positive | None = None
    height: Positive | None = None


Attachments = Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=ATTACHMENTS_MAX)]


class MessageExtras(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The parts of a message beyond its text. `reply_to` is the id of a message of the same room."""

    reply_to: Id | None = None
    mentions: Mentions = ()
    mention_room: bool = False
    attachments: Attachments = ()
    symbols: tuple[Symbol, ...] = ()


class ReplyPreview(WireStruct, frozen=True, kw_only=True):
    """The message that a reply answers: the first 200 characters of its current text; empty if it is deleted."""

    message_id: str
    user_id: str
    message: str


class ReactionCount(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The number of users who reacted with an emoji. `mine`: the caller is one of them; only in REST."""

    emoji: str
    count: int
    mine: bool = False


class ReactionChange(WireStruct, frozen=True, kw_only=True):
    """A user added or removed a reaction."""

    user_id: str
    emoji: str
    added: bool
