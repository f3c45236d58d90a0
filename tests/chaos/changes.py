"""Messages that are edited, deleted, reacted to and pinned during the faults, and watchers who must see the end of it.

Each message has one actor at a time for its text, its reactions and its pin, so the values that it may have in the end
follow from the answers. The watchers use the project's own client, which resumes by `sinceRev`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from random import Random
from typing import Any
from urllib.parse import quote

from realtime_client import RealtimeClient
from tests.chaos.client import Clock
from tests.chaos.ledger import Ledger
from tests.chaos.possible import Possible
from tests.chaos.traffic import LATE_COMMAND_S, Activity, TrafficRates, call_rest
from tests.support.live_client import RestClient
from tests.support.tokens import mint
from tests.support.waiting import until

MESSAGES_MAX = 12  # changed at a time; further ones replace deleted ones
USERS = ("writer0", "writer1", "writer2")
EMOJIS = ("👍", "❤️", ":moon:")
WATCHERS = 3
SETTLED_WITHIN_S = 60.0
DELETED = None  # the text of a deleted message


class ChangedMessage:
    """One message, the values that its text, reactions and pin may have, and whether each is being changed."""

    def __init__(self, id_: str, author: str, text: str) -> None:
        self.id = id_
        self.author = author
        self.text: Possible[str | None] = Possible(text)
        self.reactions: dict[tuple[str, str], Possible[bool]] = {}
        self.is_pinned: Possible[bool] = Possible(False)
        self.busy: set[object] = set()


class Watcher:
    """A client that applies every frame of the room to its state, and counts repeated and decreasing revs."""

    def __init__(self, url: str, user_id: str) -> None:
        async def token(_: object) -> str:
            return mint(user_id)

        self.client = RealtimeClient(url.replace("http", "ws", 1) + "/v1/live", token)
        self.texts: dict[str, str | None] = {}
        self.reactions: dict[str, dict[str, int]] = {}
        self.faults: list[str] = []
        self._rev = 0
        for type_, take in (
            ("chat:message", self._message),
            ("chat:updated", self._updated),
            ("chat:deleted", self._deleted),
            ("chat:reaction", self._reaction),
        ):
            self.client.on(type_, take)
        self.client.on("missed", lambda data: self.faults.append(f"missed {data}"))

    def shown(self, message_id: str) -> tuple[str | None, dict[str, int] | None]:
        """Return the watcher's view of a message: its text and the counts of its reactions."""
        return self.texts.get(message_id), self.reactions.get(message_id)

    def shows(self, message_id: str, seen: tuple[str | None, dict[str, int]]) -> bool:
        """Return whether the watcher knows a message like this."""
        return self.shown(message_id) == seen

    def _advance(self, data: Any) -> None:
        if data["rev"] <= self._rev:
            self.faults.append(f"rev {data['rev']} behind {self._rev}")
        self._rev = data["rev"]

    def _message(self, data: Any) -> None:
        self._advance(data)
        self.texts[data["messageId"]] = DELETED if "deletedAt" in data else data["message"]
        self.reactions[data["messageId"]] = {item["emoji"]: item["count"] for item in data.get("reactions", ())}

    def _updated(self, data: Any) -> None:
        self._advance(data)
        self.texts[data["messageId"]] = data["message"]

    def _deleted(self, data: Any) -> None:
        self._advance(data)
        self.texts[data["messageId"]] = DELETED
        self.reactions[data["messageId"]] = {}

    def _reaction(self, data: Any) -> None:
        self._advance(data)
        self.reactions[data["messageId"]] = {item["emoji"]: item["count"] for item in data["reactions"]}


class ChangeTraffic:
    """Writers, an admin who deletes and pins, and watchers, in one room."""

    def __init__(self, url: str, admin: RestClient, ledger: Ledger, clock: Clock, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.rooms: list[str] = []
        self.watchers = [Watcher(url, f"watcher{number}") for number in range(WATCHERS)]
        self._url = url
        self._admin = admin
        self._ledger = ledger
        self._clock = clock
        self._random = Random(seed)
        self._messages: list[ChangedMessage] = []
        self._open = AsyncExitStack()  # the watchers' clients

    async def prepare(self) -> None:
        """Create the room, and have the watchers subscribe to it."""
        self.rooms = [await RestClient(self._url, USERS[0]).create_room("Changes", "public")]
        for watcher in self.watchers:
            await self._open.enter_async_context(watcher.client)
            await watcher.client.subscribe("chatroom", chatroom_id=self.rooms[0])

    async def close(self) -> None:
        """Close the watchers."""
        await self._open.aclose()

    def activities(self, rates: TrafficRates) -> list[Activity]:
        """Return the acts and their frequencies."""
        return [
            (self._write, rates.changes / 4),
            (self._edit, rates.changes),
            (self._delete, rates.changes / 8),
            (self._react, rates.changes * 2),
            (self._pin, rates.changes / 2),
        ]

    # Acts -----------------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        living = [message for message in self._messages if not message.text.is_possible(DELETED)]
        if len(living) >= MESSAGES_MAX:
            return
        number = self._number("changed messages")
        author, text = self._random.choice(USERS), f"original {number}"
        body = {"message": text, "clientMessageId": f"changed-{number}"}
        status, answer = await call_rest(RestClient(self._url, author), "POST", f"{self._path}/messages", json=body)
        if status in (200, 201):
            self._messages.append(ChangedMessage(answer["data"]["id"], author, text))

    async def _edit(self) -> None:
        if (message := self._free("text")) is None:
            return
        text = f"edit {self._number('edits')} of {message.id}"

        def edited(before: str | None) -> str | None:
            return DELETED if before is DELETED else text

        author = RestClient(self._url, message.author)
        path = f"{self._path}/messages/{message.id}"
        await self._act(message, "text", message.text, text, edited, author, "PATCH", path, {"message": text})

    async def _delete(self) -> None:
        if (message := self._free("text")) is None:
            return
        self._number("deletions")
        path = f"{self._path}/messages/{message.id}"
        await self._act(message, "text", message.text, DELETED, lambda _: DELETED, self._admin, "DELETE", path)

    async def _react(self) -> None:
        user, emoji = self._random.choice(USERS), self._random.choice(EMOJIS)
        key = (user, emoji)
        if (message := self._free(key)) is None:
            return
        self._number("reactions")
        state = message.reactions.setdefault(key, Possible(False))
        adds = self._random.random() < 0.6
        path = f"{self._path}/messages/{message.id}/reactions/{quote(emoji)}"
        rest = RestClient(self._url, user)
        await self._act(message, key, state, adds, lambda _: adds, rest, "PUT" if adds else "DELETE", path)

    async def _pin(self) -> None:
        if (message := self._free("pin")) is None:
            return
        self._number("pins")
        pins = self._random.random() < 0.5
        path = f"{self._path}/pins/{message.id}"
        await self._act(
            message, "pin", message.is_pinned, pins, lambda _: pins, self._admin, "PUT" if pins else "DELETE", path
        )

    async def _act(
        self,
        message: ChangedMessage,
        what: object,
        state: Possible[Any],
        value: Any,
        change: Callable[[Any], Any],
        rest: RestClient,
        method: str,
        path: str,
        body: Any = None,
    ) -> None:
        """Make one change and note the possible states after its answer; 409: the message is deleted."""
        message.busy.add(what)
        status, _ = await call_rest(rest, method, path, json=body)
        if status == 200:
            state.confirm(value)
        elif status in (0, 404, 503):  # 404: of a PUT of a pin, whose message was deleted after it
            state.attempt(change)
            await asyncio.sleep(LATE_COMMAND_S)
        elif status != 409:
            self._ledger.note_failure(f"{method} {path} was answered {status}", channel=f"room:{self.rooms[0]}")
        message.busy.discard(what)

    # The end --------------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Record a failure for each message whose end does not follow from the answers, or that a watcher misses."""
        for message in self._messages:
            await self._judge(message)
        for number, watcher in enumerate(self.watchers):
            self._fail_each(f"watcher {number}: {fault}" for fault in watcher.faults)

    async def _judge(self, message: ChangedMessage) -> None:
        view = await self._read(f"messages/{message.id}")
        text = DELETED if "deletedAt" in view else view["message"]
        if not message.text.is_possible(text):
            self._fail(f"{message.id} shows {text!r}, not one of {message.text.values}")
        counts = {item["emoji"]: item["count"] for item in view.get("reactions", ())}
        listed = await self._read(f"messages/{message.id}/reactions?limit=100")
        reacted = {(item["userId"], item["emoji"]) for item in listed}
        if counts != Counter(emoji for _, emoji in reacted):
            self._fail(f"{message.id} counts {counts}, and lists {reacted}")
        if text is not DELETED:
            for key, state in message.reactions.items():
                if not state.is_possible(key in reacted):
                    self._fail(f"{message.id}: reaction {key} is {key in reacted}")
        pinned = {pin["message"]["id"] for pin in await self._read("pins?limit=100")}
        if text is DELETED and message.id in pinned:
            self._fail(f"{message.id} is deleted and pinned")
        if text is not DELETED and not message.is_pinned.is_possible(message.id in pinned):
            self._fail(f"{message.id}: pinned is {message.id in pinned}")
        for number, watcher in enumerate(self.watchers):
            seen = text, counts
            with suppress(TimeoutError):
                await until(partial(watcher.shows, message.id, seen), SETTLED_WITHIN_S)
            if (shown := watcher.shown(message.id)) != seen:
                self._fail(f"{message.id}: watcher {number} shows {shown}, stored is {seen}")

    async def _read(self, path: str) -> Any:
        while True:
            status, body = await call_rest(self._admin, "GET", f"{self._path}/{path}")
            if status == 200:
                return body["data"]
            await asyncio.sleep(0.5)

    # Helpers --------------------------------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return f"/v1/chatrooms/{self.rooms[0]}"

    def _free(self, what: object) -> ChangedMessage | None:
        free = [message for message in self._messages[-2 * MESSAGES_MAX :] if what not in message.busy]
        return self._random.choice(free) if free else None

    def _number(self, what: str) -> int:
        self.counts[what] += 1
        return self.counts[what]

    def _fail(self, what: str) -> None:
        self._ledger.note_failure(what, channel=f"room:{self.rooms[0]}")

    def _fail_each(self, faults: Any) -> None:
        for fault in faults:
            self._fail(fault)
