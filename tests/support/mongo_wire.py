"""The part of MongoDB's wire protocol that a proxy needs: message boundaries, OP_MSG commands, replies. Pure.

Source: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import bson

OP_MSG = 2013
HEADER_BYTES = 16
_HEADER = struct.Struct("<iiii")
_SIZE = struct.Struct("<i")
_CHECKSUM_PRESENT = 1
_MORE_TO_COME = 2
_BODY, _SEQUENCE = 0, 1
_STRING = 2  # BSON's type of an element


class WireHeader(NamedTuple):
    """The header of a message."""

    size_bytes: int
    request_id: int
    response_to: int
    opcode: int

    @classmethod
    def of(cls, message: bytes) -> "WireHeader":
        """Return the header at the start of `message`, which must hold at least 16 bytes."""
        return cls(*_HEADER.unpack_from(message))


@dataclass(frozen=True, slots=True)
class WireCommand:
    """A command. `document` also holds the documents that the driver sent as sequences, under the same names."""

    name: str
    collection: str
    document: Mapping[str, Any]
    expects_reply: bool = True


def command_of(message: bytes) -> WireCommand | None:
    """Return the command of an OP_MSG, or None for any other message."""
    if WireHeader.of(message).opcode != OP_MSG:
        return None
    document = _document(message)
    name = next(iter(document))
    target = document.get("collection") if name == "getMore" else document[name]
    flags = _SIZE.unpack_from(message, HEADER_BYTES)[0]
    return WireCommand(name, target if isinstance(target, str) else "", document, not flags & _MORE_TO_COME)


def command_label(message: bytes) -> str:
    """Return a command's name and its collection, if any. Decodes only the first element of the document."""
    if WireHeader.of(message).opcode != OP_MSG or message[HEADER_BYTES + 4] != _BODY:
        return "other"
    at = HEADER_BYTES + 4 + 1 + 4  # flags, kind of the section, size of the document
    name_end = message.index(b"\0", at + 1)
    name = message[at + 1 : name_end].decode()
    if message[at] != _STRING:
        return name
    value_end = message.index(b"\0", name_end + 5)
    return f"{name} {message[name_end + 5 : value_end].decode()}"


def reply_document(message: bytes) -> dict[str, Any]:
    """Return the document of an OP_MSG reply."""
    return _document(message)


def reply_to(request_id: int, document: Mapping[str, Any]) -> bytes:
    """Return an OP_MSG reply."""
    body = b"\0\0\0\0" + bytes([_BODY]) + bson.encode(document)
    return _HEADER.pack(HEADER_BYTES + len(body), 0, request_id, OP_MSG) + body


def _document(message: bytes) -> dict[str, Any]:
    at = HEADER_BYTES + 4
    flags = _SIZE.unpack_from(message, HEADER_BYTES)[0]
    end = len(message) - (4 if flags & _CHECKSUM_PRESENT else 0)
    document: dict[str, Any] = {}
    sequences: dict[str, list[dict[str, Any]]] = {}
    while at < end:
        kind, at = message[at], at + 1
        size = _SIZE.unpack_from(message, at)[0]
        if kind == _BODY:
            document = bson.decode(message[at : at + size])
        elif kind == _SEQUENCE:
            name_end = message.index(b"\0", at + 4)
            sequences[message[at + 4 : name_end].decode()] = bson.decode_all(message[name_end + 1 : at + size])
        at += size
    return document | sequences
