"""A TCP proxy in front of a database that fails in the ways that a replica set can.

    async with database_proxy(infrastructure.mongodb_uri) as proxy:
        ...  # start the service with MONGODB_URI=proxy.uri
        held = proxy.inject(HoldCommand(), "insert", collection="room_log", times=1)
        await held.hit()          # the command has arrived and waits in the proxy
        ...                       # freeze a process, let its lease expire, start another owner
        held.release()            # the command lands late, even if its client disconnected meanwhile
        await held.done()         # the database has answered it

A rule applies to commands by name (`insert`, `update`, `find`, `aggregate`, `findAndModify`, `delete`, `getMore`, …),
optionally to one collection, and optionally where a predicate on the command holds, which sees its document:

    proxy.inject(CutReply(), "update", where=lambda command: "removed" in str(command.document["updates"]))

Without names a rule applies to every command of its collection. `times` bounds how many commands it takes; None means
until `remove`. The newest rule that matches decides, so a test can put an exception on top of a general rule. What no
rule matches passes unchanged. The effects:

| Effect | The command | The reply |
|---|---|---|
| `DelayReply(seconds)` | lands at once | arrives `seconds` later |
| `SwallowReply()` | lands | never arrives; the connection stays open until the driver's time-out |
| `CutReply()` | lands | the connection is cut instead: unknown outcome |
| `CutCommand()` | never lands | the connection is cut |
| `HoldCommand()` | lands at `release`, even if the client has disconnected | arrives after that |
| `FailWriteConcern()` | lands | carries a writeConcernError beside the true result |
| `RefuseCommand()` | never lands | an error; by default NotWritablePrimary |
| `EditReply(edit)` | lands | is `edit(reply)`, for example `hiding(…)` as a read that misses the newest documents |
| `AnswerInstead(document)` | never lands | this document, for example `EMPTY_BATCH` as a stale read |

The proxy works in the event loop of the test. Services as separate processes and in-process services both work;
blocking calls such as `LocalSystem.start` belong in `asyncio.to_thread`. Each hit is kept in `rule.hits`, and
`proxy.seen` counts all commands by name and collection. MongoDB URIs with several hosts, TLS and compression are not
supported.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bson.int64 import Int64

from tests.support.connection_tasks import run_apart
from tests.support.mongo_wire import HEADER_BYTES, WireCommand, WireHeader, command_of, reply_document, reply_to

EMPTY_BATCH: Mapping[str, Any] = {"ok": 1.0, "cursor": {"id": Int64(0), "ns": "proxy.stale", "firstBatch": []}}
WAIT_TIMEOUT_S = 10.0
WRITE_CONCERN_FAILED = 64


@dataclass(frozen=True, slots=True)
class DelayReply:
    """The reply is late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SwallowReply:
    """The reply is lost, and the connection stays open."""


@dataclass(frozen=True, slots=True)
class CutReply:
    """The connection is cut after the command took effect and before the reply."""


@dataclass(frozen=True, slots=True)
class CutCommand:
    """The connection is cut before the database receives the command."""


@dataclass(frozen=True, slots=True)
class HoldCommand:
    """The command waits in the proxy until its rule is released."""


@dataclass(frozen=True, slots=True)
class FailWriteConcern:
    """The write is made, but the reply reports, after `after_s`, that no majority confirmed it."""

    code: int = WRITE_CONCERN_FAILED
    name: str = "WriteConcernFailed"
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RefuseCommand:
    """The command fails without an effect. Drivers repeat a command whose error carries RetryableWriteError."""

    code: int = 10107
    name: str = "NotWritablePrimary"
    message: str = "not primary"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerInstead:
    """The proxy answers in place of the database."""

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EditReply:
    """The database answers, and the proxy changes the answer."""

    edit: Callable[[dict[str, Any]], dict[str, Any]]


def hiding(is_hidden: Callable[[Mapping[str, Any]], bool]) -> EditReply:
    """Return the effect of a stale read: results of find, aggregate and getMore without the hidden documents."""

    def edit(reply: dict[str, Any]) -> dict[str, Any]:
        cursor = dict(reply.get("cursor", {}))
        for batch in ("firstBatch", "nextBatch"):
            if batch in cursor:
                cursor[batch] = [document for document in cursor[batch] if not is_hidden(document)]
        return reply | {"cursor": cursor} if cursor else reply

    return EditReply(edit)


Effect = (
    DelayReply
    | SwallowReply
    | CutReply
    | CutCommand
    | HoldCommand
    | FailWriteConcern
    | RefuseCommand
    | EditReply
    | AnswerInstead
)


@dataclass(eq=False)
class FaultRule:
    """One injected fault: the commands that it takes, and those that it took."""

    effect: Effect
    names: frozenset[str]
    collection: str | None
    where: Callable[[WireCommand], bool] | None
    times: int | None
    hits: list[WireCommand] = field(default_factory=list)
    answered: int = 0
    is_removed: bool = False
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def takes(self, command: WireCommand) -> bool:
        """Return whether the rule applies to the command."""
        return (
            not self.is_removed
            and (self.times is None or len(self.hits) < self.times)
            and (not self.names or command.name in self.names)
            and self.collection in (None, command.collection)
            and (self.where is None or self.where(command))
        )

    async def hit(self, count: int = 1, timeout_s: float = WAIT_TIMEOUT_S) -> None:
        """Return once the rule took `count` commands in total."""
        await self._wait(lambda: len(self.hits) >= count, timeout_s)

    async def done(self, count: int = 1, timeout_s: float = WAIT_TIMEOUT_S) -> None:
        """Return once the database answered `count` of the commands that the rule took."""
        await self._wait(lambda: self.answered >= count, timeout_s)

    def release(self) -> None:
        """Let held commands pass, later ones of this rule too."""
        self._released.set()

    def remove(self) -> None:
        """Stop taking commands. Held commands stay held until `release`."""
        self.is_removed = True

    async def released(self) -> None:
        """Return once `release` was called."""
        await self._released.wait()

    async def took(self, command: WireCommand) -> None:
        """Record a hit."""
        self.hits.append(command)
        await self._notify()

    async def was_answered(self) -> None:
        """Record the database's answer to a hit."""
        self.answered += 1
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(condition)


class DatabaseProxy:
    """The proxy. `uri` is its address for MongoDB clients."""

    def __init__(self, upstream_uri: str) -> None:
        parts = urlsplit(upstream_uri)
        self.upstream = (parts.hostname or "127.0.0.1", parts.port or 27017)
        self.uri = ""
        self.seen: Counter[tuple[str, str]] = Counter()
        self._rules: list[FaultRule] = []
        self._links: set[_ProxiedConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def inject(
        self,
        effect: Effect,
        *names: str,
        collection: str | None = None,
        where: Callable[[WireCommand], bool] | None = None,
        times: int | None = None,
    ) -> FaultRule:
        """Add a rule and return it."""
        rule = FaultRule(effect, frozenset(names), collection, where, times)
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Remove every rule and release held messages."""
        for rule in self._rules:
            rule.remove()
            rule.release()
        self._rules.clear()

    def cut_all(self) -> None:
        """Cut every client connection now. Commands that the database has received still take effect."""
        for link in list(self._links):
            link.cut()

    def rule_for(self, command: WireCommand) -> FaultRule | None:
        """Return the newest rule that takes the command."""
        return next((rule for rule in reversed(self._rules) if rule.takes(command)), None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a client."""
        await run_apart(self._serve(reader, writer), self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self.upstream)
            link = _ProxiedConnection(self, (reader, writer), (there, back))
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
                back.transport.abort()
        except OSError:
            pass  # the database is down, so the client loses its connection
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _ProxiedConnection:
    """One client connection and its connection to the database.

    The latter outlives the former for as long as a command that a rule took has not been answered.
    """

    def __init__(self, proxy: DatabaseProxy, client: _Ends, database: _Ends) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_database, self._to_database = database
        self._taken: dict[int, FaultRule] = {}  # by request id
        self._late: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Relay until either side ends and no command is unsettled."""
        asking = asyncio.create_task(self._ask())
        answering = asyncio.create_task(self._answer())
        try:
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            while self._taken and not answering.done():
                self._settled.clear()
                settled = asyncio.create_task(self._settled.wait())
                await asyncio.wait({settled, answering}, return_when=asyncio.FIRST_COMPLETED)
                settled.cancel()
        finally:
            tasks = {asking, answering, *self._late}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut the client's connection."""
        self._to_client.transport.abort()
        self._from_client.feed_eof()

    async def _ask(self) -> None:
        """Relay commands to the database."""
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                message = await _read_message(self._from_client)
                command = command_of(message)
                rule = None
                if command is not None:
                    self._proxy.seen[command.name, command.collection] += 1
                    rule = self._proxy.rule_for(command)
                if command is None or rule is None:
                    self._to_database.write(message)
                    await self._to_database.drain()
                else:
                    await self._apply(rule, command, message)

    async def _apply(self, rule: FaultRule, command: WireCommand, message: bytes) -> None:
        request_id = WireHeader.of(message).request_id
        match rule.effect:
            case CutCommand():
                self.cut()
            case AnswerInstead(document):
                self._to_client.write(reply_to(request_id, document))
            case RefuseCommand(code, name, text, labels):
                error = {"ok": 0.0, "code": code, "codeName": name, "errmsg": text, "errorLabels": list(labels)}
                self._to_client.write(reply_to(request_id, error))
            case HoldCommand():
                self._taken[request_id] = rule
                self._later(self._forward_released(rule, message))
            case _:
                if command.expects_reply:
                    self._taken[request_id] = rule
                self._to_database.write(message)
        await rule.took(command)

    async def _forward_released(self, rule: FaultRule, message: bytes) -> None:
        await rule.released()
        self._to_database.write(message)

    async def _answer(self) -> None:
        """Relay replies to the client. A client that disconnected misses them."""
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                message = await _read_message(self._from_database)
                request_id = WireHeader.of(message).response_to
                rule = self._taken.get(request_id)
                if rule is None:
                    self._to_client.write(message)
                    continue
                await rule.was_answered()
                self._reply(rule.effect, request_id, message)
                del self._taken[request_id]
                self._settled.set()

    def _reply(self, effect: Effect, request_id: int, message: bytes) -> None:
        match effect:
            case DelayReply(seconds):
                self._later(self._reply_after(seconds, message))
            case CutReply():
                self.cut()
            case SwallowReply():
                pass
            case EditReply(edit):
                self._to_client.write(reply_to(request_id, edit(reply_document(message))))
            case FailWriteConcern(code, name, after_s):
                error: dict[str, Any] = {"code": code, "codeName": name, "errmsg": "a majority did not confirm"}
                if code == WRITE_CONCERN_FAILED:
                    error["errInfo"] = {"wtimeout": True}
                changed = reply_to(request_id, reply_document(message) | {"writeConcernError": error})
                self._later(self._reply_after(after_s, changed))
            case _:
                self._to_client.write(message)

    async def _reply_after(self, seconds: float, message: bytes) -> None:
        await asyncio.sleep(seconds)
        self._to_client.write(message)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(HEADER_BYTES)
    return header + await reader.readexactly(WireHeader.of(header).size_bytes - HEADER_BYTES)


@asynccontextmanager
async def database_proxy(upstream_uri: str) -> AsyncIterator[DatabaseProxy]:
    """Yield a proxy on a free port in front of `upstream_uri`."""
    proxy = DatabaseProxy(upstream_uri)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.uri = f"mongodb://127.0.0.1:{server.sockets[0].getsockname()[1]}/?directConnection=true"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
