"""Output of the command line: JSON or text. Pure.

Control characters in user content are replaced, since a message must not control the reader's terminal.
"""

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

from shared.times import to_iso

Record = dict[str, Any]

BODY_SHOWN = 200


def as_json(record: object) -> str:
    """Return one line of ASCII JSON."""
    return json.dumps(record).replace("\x7f", "\\u007f")


def printable(text: str) -> str:
    """Return the text on one line, with control and formatting characters replaced by `?`."""
    return "".join("?" if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else char for char in text)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return aligned columns without trailing spaces."""
    cells = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def rooms(items: Sequence[Record]) -> str:
    """Return a table of rooms."""
    header = ("ID", "TYPE", "MEMBERS", "ONLINE", "UNREAD", "LAST MESSAGE", "NAME")
    keys = ("id", "type", "memberCount", "activeNow", "unreadCount", "lastMessageAt", "name")
    return table(header, [["-" if item[key] is None else item[key] for key in keys] for item in items])


def presence(items: Sequence[Record]) -> str:
    """Return a table of users and their presence."""
    rows = [[item["userId"], item["status"], item["lastSeenAt"] or "-"] for item in items]
    return table(("USER", "STATUS", "LAST SEEN"), rows)


def messages(items: Sequence[Record]) -> str:
    """Return a table of messages; a text is shown to 200 characters."""
    rows = [
        [item["createdAt"], item["chatroomId"], item["seq"], item["userId"], item["message"][:BODY_SHOWN]]
        for item in items
    ]
    return table(("TIME", "ROOM", "SEQ", "USER", "MESSAGE"), rows)


def event(type_: str, data: Record) -> str:
    """Return one line for a live event."""
    match type_:
        case "chat:message":
            return printable(f"{data['timestamp']}  {data['seq']:>5}  {_name_of(data)}: {data['message']}")
        case "market:price":
            change = f"{data['change']:+g} ({data['changePercent']:+.2f} %)"
            return printable(f"{data['timestamp']}  {data['symbol']}  {data['price']:g}  {change}")
        case _:
            return printable(f"{type_}  {json.dumps(data, ensure_ascii=False)}")


def dead_letters(items: Sequence[Record]) -> str:
    """Return a table of dead letters."""
    rows = [
        [item["number"], item["at"] or "-", item["queue"], item["reason"], item["body"][:BODY_SHOWN]] for item in items
    ]
    return table(("NUMBER", "SINCE", "QUEUE", "REASON", "BODY"), rows)


def dead_letter(number: int, body: bytes, reason: str, queue: str, at_ms: int) -> Record:
    """Return a dead letter as `--json` shows it. Bytes that are not UTF-8 become U+FFFD."""
    at = to_iso(at_ms) if at_ms else None
    return {"number": number, "at": at, "queue": queue, "reason": reason, "body": body.decode(errors="replace")}


def _name_of(data: Record) -> str:
    user = data.get("user") or {}
    name = f"{user.get('firstName', '')} {user.get('lastName', '')}".strip()
    return f"{name} ({data['userId']})" if name else str(data["userId"])


def findings(items: Sequence[Record]) -> str:
    """Return the findings of `doctor`, each with its remedy below it."""
    lines: list[str] = []
    for item in items:
        lines.append(printable(f"{item['severity']:8} {item['subject']}: {item['text']}"))
        if item["remedy"]:
            lines.append(printable(f"{'':8} -> {item['remedy']}"))
    return "\n".join(lines)
