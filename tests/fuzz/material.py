"""Fuzzing input: valid frames and calls, and mutations of them. Seeded; nothing here waits."""

import json
from collections import deque
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

from shared.ids import direct_room_id

SYMBOLS = ["EUR/USD", "GBP/JPY", "XAU/USD", "NOPE"]
COMMUNITIES = ["gold", "silver"]
HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e308, -0.0),
    *("", " ", "\x00", "a\tb", "a\nb", "$where", "a.b", "../..", "\ufeff", "\u2028", "x" * 129, "y" * 70_000),
    *([], {}, [[]], [None], {"$ne": ""}, {"$gt": 1}, {"a.b": {"$where": "1"}}, ["a"] * 300),
]
TEXTS = ["hello", "EUR/USD breaking \u2028 resistance", "\U0001f600" * 10, "t\tn\n\x00", "z" * 5_000]
EMOJIS = ["\U0001f44d", "\u2764", ":moon:", "a", "", "\U0001f468\u200d\U0001f469\u200d\U0001f467"]
MESSAGES_KEPT = 50
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]


class FuzzMaterial(NamedTuple):
    """Existing entities: users, rooms of every type, and the newest messages that any fuzzer received."""

    users: list[str]
    rooms: list[str]
    messages: deque[tuple[str, str]]  # room and id


class Material:
    """Generates frames and calls."""

    def __init__(self, random: Random, place: FuzzMaterial) -> None:
        self.random = random
        self.place = place
        self._number = 0

    def saw(self, frame: dict[str, Any]) -> None:
        """Keep the room and id of a received message, for frames and calls about it."""
        if frame["type"] == "chat:message":
            self.place.messages.append((frame["data"]["chatroomId"], frame["data"]["messageId"]))

    def message(self) -> tuple[str, str]:
        """Return the room and id of a message, perhaps one of another room or a nonexistent one."""
        choice = self.random.random()
        messages = self.place.messages
        if choice < 0.8 and messages:
            return self.random.choice(messages)
        if choice < 0.9 and messages:
            return self.room(), self.random.choice(messages)[1]
        return self.room(), "msg_" + self.random.choice(["never", "", "x" * 100])

    def room(self) -> str:
        """Return a room, perhaps a nonexistent one."""
        choice = self.random.random()
        if choice < 0.8:
            return self.random.choice(self.place.rooms)
        if choice < 0.9:
            return direct_room_id(*self.random.sample(self.place.users, 2))
        return "room_" + self.random.choice(["never", "NEVER2", "x" * 100])

    def user(self) -> str:
        """Return a user, perhaps an unknown one."""
        return self.random.choice([*self.place.users, "nobody"])

    def frame(self) -> dict[str, Any]:
        """Return a valid frame, usually with an id."""
        pick = self.random.choice
        room, message = self.message()
        about = {"chatroomId": room, "messageId": message}
        frame: dict[str, Any] = pick(
            [
                {"type": "ping"},
                {"type": "chat:send", "chatroomId": self.room(), "message": pick(TEXTS)},
                {
                    "type": "chat:send",
                    "chatroomId": self.room(),
                    "message": pick(TEXTS),
                    "clientMessageId": pick("abc"),
                },
                {"type": "chat:send", "chatroomId": room, "message": pick(TEXTS), **self.additions(message)},
                {"type": "chat:direct", "userId": self.user(), "message": pick(TEXTS)},
                {"type": "chat:edit", **about, "message": pick(TEXTS)},
                {"type": "chat:delete", **about},
                {"type": "chat:react", **about, "emoji": pick(EMOJIS), "remove": pick([True, False])},
                {"type": "chat:typing", "chatroomId": self.room(), "isTyping": pick([True, False])},
                {"type": "chat:read", "chatroomId": self.room(), "seq": self.random.randrange(5)},
                {"type": "presence:get", "userIds": [self.user() for _ in range(3)]},
                {"type": pick(["subscribe", "unsubscribe"]), **self.target()},
            ]
        )
        if self.random.random() < 0.9:
            self._number += 1
            frame = {**frame, "id": pick([self._number, f"id-{self._number}", self._number + 0.5])}
        return frame

    def additions(self, message: str) -> dict[str, Any]:
        """Return optional fields of a message."""
        optional: dict[str, Any] = {
            "replyTo": message,
            "mentions": [self.user()],
            "mentionRoom": True,
            "attachments": [{"kind": "image", "url": "https://example.com/chart.png"}],
            "symbols": [self.random.choice(SYMBOLS)],
        }
        return {name: value for name, value in optional.items() if self.random.random() < 0.4}

    def target(self) -> dict[str, Any]:
        """Return the target of a subscription."""
        pick = self.random.choice
        since = {"since": self.random.randrange(10)} if self.random.random() < 0.5 else {}
        targets: list[dict[str, Any]] = [
            {"channel": "chatroom", "chatroomId": self.room(), **since},
            {"channel": "chatroom", "chatroomId": self.room(), "sinceRev": self.random.randrange(10)},
            {"channel": "activity"},
            {"channel": "notifications", **since},
            {"channel": "market", "symbols": self.random.sample(SYMBOLS, 2), "maxRate": pick([1, 10, 50])},
            {"channel": "community", "communityId": pick(COMMUNITIES)},
        ]
        return pick(targets)

    def text(self) -> str:
        """Return the text of a frame, valid or mutated."""
        choice = self.random.random()
        frame = self.frame()
        if choice < 0.5:
            return json.dumps(frame)
        if choice < 0.75:
            return json.dumps(self.mutated(frame))
        if choice < 0.85:
            return self.broken(json.dumps(frame))
        if choice < 0.95:
            return json.dumps(self.value(3))
        return "".join(chr(self.random.randrange(1, 0xD7FF)) for _ in range(self.random.randrange(200)))

    def mutated(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return the frame with one field removed, invalid, or taken from another frame."""
        field = self.random.choice(list(frame))
        choice = self.random.random()
        if choice < 0.2:
            return {name: value for name, value in frame.items() if name != field}
        if choice < 0.8:
            return {**frame, field: self.value(2)}
        return {**self.frame(), **frame, field: self.frame().get(field)}

    def value(self, depth: int) -> Any:
        """Return any JSON value."""
        if depth == 0 or self.random.random() < 0.6:
            return self.random.choice(HOSTILE)
        values = [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return values if self.random.random() < 0.5 else {f"k{number}": value for number, value in enumerate(values)}

    def broken(self, text: str) -> str:
        """Return malformed JSON."""
        at = self.random.randrange(len(text) + 1)
        pieces = ["[" * 5_000, '{"a":' * 2_000, "\\ud800", '"', "\x00", "}", ",", "1e999", "NaN", "-", "\\u", "\ufeff"]
        match self.random.randrange(3):
            case 0:
                return text[:at]
            case 1:
                return text[:at] + self.random.choice(pieces) + text[at:]
            case _:
                return text[:at] + chr(self.random.randrange(1, 128)) + text[at + 1 :]

    def bytes_(self, most: int) -> bytes:
        """Return any bytes."""
        return self.random.randbytes(self.random.randrange(most))

    def call(self) -> tuple[str, str, Any]:
        """Return a REST call: method, path with query, and body or None; often invalid."""
        room, user, pick = f"/v1/chatrooms/{self.room()}", self.user(), self.random.choice
        its_room, its_id = self.message()
        message = f"/v1/chatrooms/{its_room}/messages/{its_id}"
        reaction = f"{message}/reactions/{quote(pick(EMOJIS))}"
        edit = {"message": pick(TEXTS), "mentions": [user]}
        calls: list[tuple[str, str, Any]] = [
            (
                "GET",
                f"/v1/chatrooms?page={pick([1, 2, 0, 'x'])}&limit={pick([1, 100, 101])}&q={pick(['a', '(', '%00'])}",
                None,
            ),
            ("POST", "/v1/chatrooms", {"name": pick(TEXTS)[:100], "type": pick(["public", "private", "group"])}),
            ("GET", room, None),
            ("PUT", room, {"description": pick(TEXTS)}),
            ("GET", f"{room}/messages?before={pick([1, 10**6, -1, 'x'])}", None),
            ("POST", f"{room}/messages", {"message": pick(TEXTS), "clientMessageId": pick("abc")}),
            ("POST", f"{room}/{pick(['join', 'leave'])}", None),
            ("POST", f"{room}/read", {"seq": self.random.randrange(5)}),
            ("GET", f"{room}/members", None),
            (pick(["PUT", "DELETE"]), f"{room}/members/{user}", None),
            ("POST", "/v1/messages/direct", {"userId": user, "message": pick(TEXTS)}),
            (pick(["GET", "DELETE"]), message, None),
            ("PATCH", message, edit),
            ("GET", f"{message}/{pick(['replies', 'reactions'])}?limit={pick([1, 101, 'x'])}", None),
            (pick(["PUT", "DELETE"]), reaction, None),
            (pick(["PUT", "DELETE"]), f"/v1/chatrooms/{its_room}/pins/{its_id}", None),
            ("GET", f"{room}/pins", None),
            ("GET", "/v1/chatrooms/unread", None),
            ("PUT", f"{room}/members/{user}", {"role": pick(["moderator", "member", "creator", "admin"])}),
            (
                "GET",
                f"{room}/messages/search?q={pick(['ab', '(', '%00%00', '%E6%9D%B1%E4%BA%AC'])}&userId={user}",
                None,
            ),
            ("GET", f"/v1/search?q={pick(['ab', 'x', '%F0%9F%98%80%20'])}&before={pick(['msg_x', '..'])}", None),
            ("GET", f"/v1/users/{user}/presence", None),
            ("GET", f"/v1/presence?ids={user},{self.user()}", None),
            ("GET", f"/v1/market/prices?symbols={pick(SYMBOLS)}", None),
            ("GET", f"/v1/market/candles?symbol={pick(SYMBOLS)}&interval={pick(['1m', '1d', '2h'])}", None),
            ("GET", "/v1/notifications?unread=true", None),
            ("POST", f"/v1/notifications/{pick(['notif_x', 'read-all', '%0a'])}/read", None),
            ("POST", "/v1/alerts", {"symbol": pick(SYMBOLS), "direction": "above", "price": pick([1, 1e9, -1])}),
            ("DELETE", f"/v1/alerts/{pick(['alert_x', '..', '%24ne'])}", None),
        ]
        method, path, body = pick(calls)
        choice = self.random.random()
        if choice < 0.2 and body is not None:
            body = self.mutated(body)
        elif choice < 0.3:
            method = pick(METHODS)
        elif choice < 0.4:
            path = path[: self.random.randrange(1, len(path))] + pick(["", "/", "%00", "%2e%2e", "?a=b", "%ff", "/*"])
        return method, path, body
