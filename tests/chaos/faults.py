"""Fault injection by plan: signals, broker, database, clients, repeats. All but clocks are healed."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import NamedTuple

import aio_pika

from shared.bus.amqp import Connection
from shared.bus.topology import DELIVERIES, SHARDS, shard_key
from tests.chaos.client import ChaosClient, Clock
from tests.chaos.database import DATABASE_FAULTS
from tests.chaos.plan import Fault, Kind
from tests.chaos.system import Patient
from tests.chaos.traffic import BROKER_FAILURES, EventPublisher
from tests.support.live_client import LiveClient
from tests.support.waiting import until, until_async

ROLL_PAUSE_S = 3.0
ROLL_TIMEOUT_S = 90.0
TAPPED_S = 1.5
TAPPED_BODIES = 50
BROKER_WATERMARK = "1GiB"
SKEW_MS = 1_500  # a process whose clock is off by 2 s is not ready
STOP_TIMEOUT_S = 40.0
WITNESSES = 4  # clients that are never harmed directly
STORM_USERS = 150
STORM_CROWDS = 4  # of users in turn, so that presence knows a bounded number of them
HARMED_CLIENTS = 3  # one in three of the others


class InjectedFault(NamedTuple):
    """A completed fault and its time."""

    fault: Fault
    begun_s: float
    ended_s: float


class FaultInjector:
    """Injects faults one after another. Lasting ones overlap, except two of the broker or two database outages."""

    def __init__(
        self,
        patient: Patient,
        clients: Sequence[ChaosClient],
        publisher: EventPublisher,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self.done: list[InjectedFault] = []
        self._patient = patient
        self._clients = list(clients)
        self._publisher = publisher
        self._clock = clock
        self._say = say
        self._broker = asyncio.Lock()
        self._database = asyncio.Lock()

    async def carry_out(self, plan: Sequence[Fault], at_most_s: float) -> None:
        """Inject the faults, none of them later than `at_most_s` from now, and return once everything is healed."""
        end_s = self._clock() + at_most_s
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                if self._clock() + fault.pause_s > end_s:
                    break
                await asyncio.sleep(fault.pause_s)
                if fault.kind.startswith(("broker", "node")):
                    async with self._broker:  # one at a time, so that each takes effect
                        pass
                begun = asyncio.Event()
                tasks.create_task(self._one(fault, begun))
                await begun.wait()

    async def roll(self) -> None:
        """Restart every process with SIGTERM, each after the previous one is ready again."""
        for number, name in enumerate(self._patient.names, 1):
            await asyncio.sleep(ROLL_PAUSE_S)
            fault = Fault(number, Kind.TERM, name, ROLL_PAUSE_S, 0.0)
            begun_s = self._clock()
            self._say(f"{begun_s:7.1f} s  {number:3d}  {fault}")
            before = self._patient.signal(name, signal.SIGTERM)
            await until(lambda: self._patient.pid(name) not in (before, None), ROLL_TIMEOUT_S)  # noqa: B023 - awaited
            await until_async(lambda: asyncio.to_thread(self._patient.is_ready, name), bool, ROLL_TIMEOUT_S)  # noqa: B023
            self.done.append(InjectedFault(fault, begun_s, self._clock()))
        await asyncio.sleep(ROLL_PAUSE_S)

    async def _one(self, fault: Fault, begun: asyncio.Event) -> None:
        begun_s = self._clock()
        self._say(f"{begun_s:7.1f} s  {fault.number:3d}  {fault}")
        begun.set()
        await self._inflict(fault)
        self.done.append(InjectedFault(fault, begun_s, self._clock()))

    async def _inflict(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL:
                self._patient.signal(fault.target, signal.SIGKILL)
            case Kind.TERM:
                self._patient.signal(fault.target, signal.SIGTERM)
            case Kind.FREEZE:
                await self._freeze(fault)
            case Kind.BROKER_KILL | Kind.BROKER_RESTART:
                await self._broker_away(fault)
            case Kind.BROKER_CUT:
                async with self._broker:
                    await self._control("close_all_connections", "chaos")
            case Kind.BROKER_ALARM:
                await self._broker_alarm(fault)
            case Kind.DATABASE_KILL | Kind.DATABASE_RESTART:
                await self._database_away(fault)
            case Kind.SKEW:
                self._patient.skew_clock(fault.target, SKEW_MS if fault.number % 2 else -SKEW_MS)
                self._patient.signal(fault.target, signal.SIGKILL)
            case Kind.HAND_OVER:
                await self._hand_over(fault)
            case Kind.NODE_KILL | Kind.NODE_FREEZE | Kind.NODE_RESTART:
                await self._node_away(fault)
            case kind if kind in DATABASE_FAULTS:
                await self._database_fails(fault)
            case _:
                await self._harm_clients(fault)

    async def _harm_clients(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.CUT_CLIENTS:
                for client in self._harmed(fault):
                    client.cut()
            case Kind.STUCK_CLIENTS:
                for client in self._harmed(fault):
                    client.stick(fault.hold_s)
            case Kind.SLOW_CLIENTS:
                for client in self._harmed(fault):
                    client.slow(fault.hold_s)
            case Kind.STORM:
                await self._storm(fault)
            case Kind.REPEAT_DELIVERIES:
                await self._repeat_deliveries()
            case Kind.REPEAT_EVENTS:
                await self._publisher.repeat()
            case _:
                raise ValueError(f"{fault.kind}: unknown")

    async def _storm(self, fault: Fault) -> None:
        url = self._patient.local.entries()["GATEWAY_URL"]
        users = [f"stranger-{fault.number % STORM_CROWDS}-{number}" for number in range(STORM_USERS)]
        arrived = await asyncio.gather(*(LiveClient.as_user(url, user) for user in users), return_exceptions=True)
        await asyncio.sleep(fault.hold_s)
        await asyncio.gather(*(one.close() for one in arrived if isinstance(one, LiveClient)), return_exceptions=True)

    def _harmed(self, fault: Fault) -> list[ChaosClient]:
        return self._clients[WITNESSES + fault.number % HARMED_CLIENTS :: HARMED_CLIENTS]

    async def _freeze(self, fault: Fault) -> None:
        pid = self._patient.signal(fault.target, signal.SIGSTOP)
        await asyncio.sleep(fault.hold_s)
        if pid is not None and pid == self._patient.pid(fault.target):
            self._patient.signal(fault.target, signal.SIGCONT)

    async def _broker_away(self, fault: Fault) -> None:
        broker = self._patient.infrastructure.broker
        async with self._broker:
            await asyncio.to_thread(broker.kill if fault.kind is Kind.BROKER_KILL else broker.stop)
            await asyncio.sleep(fault.hold_s)
            await asyncio.to_thread(broker.start)

    async def _broker_alarm(self, fault: Fault) -> None:
        async with self._broker:
            await self._control("set_vm_memory_high_watermark", "absolute", "1")
            await asyncio.sleep(fault.hold_s)
            await self._control("set_vm_memory_high_watermark", "absolute", BROKER_WATERMARK)

    async def _database_away(self, fault: Fault) -> None:
        database = self._patient.infrastructure.database
        async with self._database:
            await asyncio.to_thread(database.kill if fault.kind is Kind.DATABASE_KILL else database.stop)
            await asyncio.sleep(fault.hold_s)
            await asyncio.to_thread(database.start)

    async def _database_fails(self, fault: Fault) -> None:
        rule = await self._patient.database_front.inject(DATABASE_FAULTS[fault.kind])
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            await self._patient.database_front.end(rule)

    async def _hand_over(self, fault: Fault) -> None:
        further = self._patient.further_chat_service()
        further.start()
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            await asyncio.to_thread(further.stop, STOP_TIMEOUT_S)

    async def _node_away(self, fault: Fault) -> None:
        cluster = self._patient.cluster
        if cluster is None:
            raise ValueError("faults of nodes need --cluster")
        member = cluster.members[int(fault.target.rpartition("-")[2]) - 1]
        async with self._broker:
            match fault.kind:
                case Kind.NODE_KILL:
                    await asyncio.to_thread(member.kill)
                case Kind.NODE_FREEZE:
                    member.freeze()
                case _:
                    await asyncio.to_thread(member.stop)
            await asyncio.sleep(fault.hold_s)
            await asyncio.to_thread(cluster.heal)

    async def _control(self, *arguments: str) -> None:
        await asyncio.to_thread(self._patient.control, *arguments)

    async def _repeat_deliveries(self) -> None:
        """Listen to all shards for a moment and republish what arrived. Does nothing if the broker is unavailable."""
        try:
            url = self._patient.broker_urls[0]
            async with await aio_pika.connect(url, timeout=2.0, connection_class=Connection) as connection:
                channel = await connection.channel()
                exchange = await channel.get_exchange(DELIVERIES, ensure=False)
                queue = await channel.declare_queue(exclusive=True)
                for shard in range(SHARDS):
                    await queue.bind(exchange, shard_key(shard))
                await asyncio.sleep(TAPPED_S)
                tapped = [await queue.get(no_ack=True, fail=False) for _ in range(TAPPED_BODIES)]
                for message in tapped:
                    if message is not None:
                        again = aio_pika.Message(message.body)
                        await exchange.publish(again, message.routing_key or "", timeout=2.0)
        except BROKER_FAILURES:
            self._say("           (the broker was unavailable: no deliveries repeated)")
