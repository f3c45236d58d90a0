"""The database as the services reach it: through a proxy that fails as a replica set does, by kind of fault."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from tests.chaos.plan import Kind
from tests.support.database_proxy import (
    CutReply,
    DatabaseProxy,
    DelayReply,
    Effect,
    FailWriteConcern,
    FaultRule,
    HoldCommand,
    RefuseCommand,
    database_proxy,
)

START_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 5.0
SLOW_S = 0.7
UNCONFIRMED_AFTER_S = 0.2
ROOM_LOG = "room_log"
WRITES = ("insert", "update", "delete", "findAndModify")

T = TypeVar("T")


class DatabaseFault(NamedTuple):
    """The rule by which the proxy handles commands."""

    effect: Effect
    names: tuple[str, ...] = WRITES
    collection: str | None = None
    times: int | None = None


DATABASE_FAULTS = {
    Kind.DATABASE_SLOW: DatabaseFault(DelayReply(SLOW_S)),
    Kind.DATABASE_UNCONFIRMED: DatabaseFault(FailWriteConcern(after_s=UNCONFIRMED_AFTER_S)),
    Kind.DATABASE_CUT: DatabaseFault(CutReply()),
    Kind.DATABASE_REFUSE: DatabaseFault(RefuseCommand()),
    Kind.DATABASE_LATE: DatabaseFault(HoldCommand(), ("insert",), ROOM_LOG, times=1),
}


class DatabaseFront:
    """The proxy, in a thread with its own event loop: it works while the harness blocks. `uri` is its address."""

    def __init__(self, upstream_uri: str) -> None:
        self.uri = ""
        self._upstream_uri = upstream_uri
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="database-front", daemon=True)
        self._started = threading.Event()

    async def inject(self, fault: DatabaseFault) -> FaultRule:
        """Begin a fault."""
        return await self._call(
            lambda: self._proxy.inject(fault.effect, *fault.names, collection=fault.collection, times=fault.times)
        )

    async def end(self, rule: FaultRule) -> None:
        """End a fault; a held command lands now."""

        def end() -> None:
            rule.remove()
            rule.release()

        await self._call(end)

    async def _call(self, work: Callable[[], T]) -> T:
        async def in_loop() -> T:
            return work()

        running = asyncio.run_coroutine_threadsafe(in_loop(), self._loop)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await asyncio.wrap_future(running)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with database_proxy(self._upstream_uri) as proxy:
            self._proxy: DatabaseProxy = proxy
            self.uri = proxy.uri
            self._started.set()
            await self._stop.wait()
            proxy.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise TimeoutError("the database proxy does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)
