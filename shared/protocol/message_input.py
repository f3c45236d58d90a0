"""The content of a message as clients send it, over a socket and by REST, and its cross-field checks. Pure."""

import re

import msgspec

from shared.errors import Refusal
from shared.protocol.message_parts import (
    SYMBOLS_MAX,
    Attachments,
    Mentions,
    MessageExtras,
)
from shared.protocol.validation import VISIBLE_PATTERN, ClientMessageId, Id, Symbol

_visible = re.compile(VISIBLE_PATTERN)


class MessageInput(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A message to send. Sends with the same `clientMessageId` store one message (idempotent).

    The text may be blank in a message with attachments. Symbols that are repeated count once.
    """

    message: str
    client_message_id: ClientMessageId | None = None
    reply_to: Id | None = None
    mentions: Mentions = ()
    mention_room: bool = False
    attachments: Attachments = ()
    symbols: tuple[Symbol, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Return whether the message is only text. HOT: almost every message."""
        return not (self.reply_to is not None or self.mentions or self.mention_room or self.attachments or self.symbols)

    def check(self) -> None:
        """Raise VALIDATION for a blank text without attachments, and for too many symbols."""
        if not self.attachments and not _visible.search(self.message):
            raise Refusal.invalid("message", "must not be blank")
        if len(self.symbols) > SYMBOLS_MAX and len(set(self.symbols)) > SYMBOLS_MAX:
            raise Refusal.invalid("symbols", f"must be at most {SYMBOLS_MAX} different ones")

    def text(self) -> str:
        """Return the text, empty if it is blank."""
        return self.message if not self.attachments or _visible.search(self.message) else ""

    def extras(self) -> MessageExtras | None:
        """Return the parts of the message beyond its text; None if there are none."""
        if self.is_plain:
            return None
        return MessageExtras(
            reply_to=self.reply_to,
            mentions=tuple(dict.fromkeys(self.mentions)),
            mention_room=self.mention_room,
            attachments=self.attachments,
            symbols=tuple(dict.fromkeys(self.symbols)),
        )


class EditInput(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The new text of a message; absent mentions are kept. It may be blank in a message with attachments."""

    message: str
    mentions: Mentions | None = None

    def text(self) -> str:
        """Return the text, empty if it is blank."""
        return self.message if _visible.search(self.message) else ""

    def all_mentions(self) -> tuple[str, ...] | None:
        """Return the mentions, each once; None to keep those of the message."""
        return None if self.mentions is None else tuple(dict.fromkeys(self.mentions))
