"""The shell around `outbox`: sends bodies, receives answers, and resolves the futures of commands.

Beats of chat_service replicas name the queue of each partition's owner. Answers arrive on this gateway's private queue
among the deliveries, so a message and its sender's acknowledgement arrive in one body.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec

from gateway.commands.outbox import CommandOutbox, Route
from gateway.commands.restore_detector import RestoreDetector
from gateway.metrics import COMMANDS_SHED
from shared.bus.broadcast_queue import follow_broadcasts
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery, DeliveryKind
from shared.bus.pending_reply import PendingReply
from shared.bus.private_queue import PrivateQueue
from shared.bus.topology import BEATS, PARTITIONS, partition_of
from shared.commands.body import COMMAND_TTL_MS, decode_answered
from shared.commands.broadcasts import Broadcast, GatewayBeat, ReplicaBeat
from shared.commands.chat import RoomCommand
from shared.commands.command import Reply
from shared.encoding import to_json
from shared.errors import ErrorCode, Malformed, Refusal
from shared.protocol.validation import decode
from shared.telemetry import logs, metrics, tracing
from shared.times import clock_problem, now_ms
from shared.waiting import is_set_within

log = logs.get(__name__)

TICK_S = 0.1
BEAT_INTERVAL_S = 1.0
SKEWS_KEPT = 20

_reply_decoder = msgspec.json.Decoder(Reply)


class _PendingCommand(PendingReply):
    """A room command whose reply has not arrived."""

    __slots__ = ("partition",)

    def __init__(self, command: RoomCommand, span: tracing.PendingSpan | None) -> None:
        super().__init__(command, span)
        self.partition = partition_of(command.room_id)


class CommandRouter:
    """Room commands of one gateway process. Create it before entering the bus's context.

    `replies` is the private queue on which answers arrive. A command expires after at most 3 s; the owner does
    not begin an expired one. `on_restored` is called when the database was restored from a backup.
    """

    def __init__(self, bus: Bus, replies: PrivateQueue, on_restored: Callable[[], None]) -> None:
        self._bus = bus
        self._restores = RestoreDetector()
        self._on_restored = on_restored
        self._replies = replies
        self._outbox = CommandOutbox(bus.name, PARTITIONS)
        self._ttl_ms = min(COMMAND_TTL_MS, round(bus.request_timeout_s * 1000))
        self._waiting: dict[str, _PendingCommand] = {}
        # Each value is the database's clock minus ours, minus the heartbeat's transit time: the largest is the most
        # exact.
        self._skews_ms: deque[int] = deque(maxlen=SKEWS_KEPT)
        self._is_flush_due = False
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        follow_broadcasts(bus, self._on_broadcast)
        bus.on_connected.append(self._resend)

    async def readiness(self) -> str | None:
        """Return None while the host's clock, on which token expiry depends, is right within 2 s, else the reason."""
        return clock_problem(max(self._skews_ms, default=0))

    # Commands out ---------------------------------------------------------------------------------------------------

    def expires_at_monotonic_ms(self) -> int:
        """Return the expiry of a command that starts now, by this process's monotonic clock."""
        return self._now_ms() + self._ttl_ms

    def check_backlog(self, room_id: str) -> None:
        """Raise Refusal with UNAVAILABLE if too many commands wait for the room's partition (load shedding). HOT."""
        if not self._outbox.has_room(partition_of(room_id)):
            raise _overloaded()

    def ask(self, command: RoomCommand) -> "asyncio.Future[Reply]":
        """Send a command to the owner of its room and return the future of its reply. HOT.

        The future raises Unavailable at once while not connected to the broker, and later when the command can no
        longer be committed and no reply has arrived. Raises Refusal as `check_backlog` does.
        """
        self.check_backlog(command.room_id)
        if (span := tracing.ask(command.op)) is not None:
            command = msgspec.structs.replace(command, trace=span.trace)
        pending = _PendingCommand(command, span)
        if logs.details:
            log.debug("command_asked", request_id=pending.request_id, op=command.op, command_id=command.id)
        if not self._bus.is_connected:
            pending.fail("not connected to the broker")
        elif not self._outbox.add(pending.partition, command.id, to_json(command), command.expires_at_monotonic_ms):
            pending.fail("too many commands wait for the room's partition")
            raise _overloaded()
        else:
            self._waiting[command.id] = pending
            self._flush_soon()
        return pending.arriving

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._outbox.is_idle:  # while idle, a heartbeat must not wake `run`
            self._asked.set()
        if not self._bus.is_connected:
            return
        for sending in self._outbox.due(self._replies.name, self._now_ms()):
            self._bus.send("", sending.queue, sending.body)

    # Answers and heartbeats in --------------------------------------------------------------------------------------

    def on_answer(self, delivery: Delivery) -> None:
        """Take a REPLY or ANSWERED line; those of other gateways are skipped. HOT."""
        if delivery.channel != self._bus.name:
            return
        if delivery.kind is DeliveryKind.REPLY:
            self._take_reply(delivery)
            return
        try:
            answered = decode_answered(delivery.frame)
        except Malformed as error:
            log.error("bad_answer", reason=str(error))
            return
        if answered.is_moved:
            self._outbox.moved(answered.partition, answered.number, answered.term, self._now_ms())
        else:
            at_ms = self._now_ms()
            for command_id in self._outbox.answered(answered.partition, answered.number, answered.term, at_ms):
                self._fail_unanswered(command_id)  # expired before it was decided: it has no reply
        self._flush()

    def _take_reply(self, delivery: Delivery) -> None:
        """Resolve a command with its reply, unless its body was sent to a newer owner since; then that one decides."""
        try:
            reply = decode(delivery.frame, _reply_decoder)
        except (Malformed, Refusal) as error:
            log.error("bad_reply", reason=str(error))
            return
        pending = self._waiting.get(reply.id)
        if pending is not None and self._outbox.is_in_flight_to(pending.partition, delivery.term):
            del self._waiting[reply.id]
            pending.resolve(reply)

    def _on_broadcast(self, broadcast: Broadcast) -> None:
        if not isinstance(broadcast, ReplicaBeat):
            return
        if self._restores.is_restored(broadcast.generation):
            self._outbox.forget_owners()
            self._on_restored()
        elif self._restores.is_outdated(broadcast.generation):
            return
        arrived_ms = self._now_ms()
        for partition, term in broadcast.terms.items():
            self._outbox.learn_owner(partition, Route(broadcast.queue, term), arrived_ms)
        for moved in broadcast.handed_over:
            self._outbox.learn_owner(moved.partition, Route(moved.queue, moved.term), arrived_ms)
        self._skews_ms.append(broadcast.database_ms - now_ms())
        metrics.CLOCK_SKEW_SECONDS.set(max(self._skews_ms) / 1000)
        self._flush()

    async def _resend(self) -> None:
        self._outbox.reconnected(self._now_ms())
        self._flush()

    # Time -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Beat, resend and expire until cancelled."""
        beat_due_s = 0.0
        while True:
            tick_ms = self._now_ms()
            if self._bus.is_connected and time.monotonic() >= beat_due_s:
                beat_due_s = time.monotonic() + BEAT_INTERVAL_S
                self._bus.send(BEATS, "", to_json(GatewayBeat(gateway=self._bus.name, sent_at_monotonic_ms=tick_ms)))
            for command_id in self._outbox.tick(tick_ms):
                self._fail_unanswered(command_id)
            self._flush()
            await self._wait(beat_due_s)

    async def _wait(self, beat_due_s: float) -> None:
        """Wait for the next tick; while no command waits or is in flight, for the next command or heartbeat."""
        if not self._outbox.is_idle:
            await asyncio.sleep(TICK_S)
            return
        self._asked.clear()
        await is_set_within(self._asked, max(beat_due_s - time.monotonic(), TICK_S))

    def _fail_unanswered(self, command_id: str) -> None:
        """Fail a command without a reply.

        It expired here, or the owner found it expired: the owner then answers the body and skips the command.
        """
        pending = self._waiting.pop(command_id, None)
        if pending is not None:
            pending.fail("no answer in time")

    def _now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


def _overloaded() -> Refusal:
    COMMANDS_SHED.inc()
    return Refusal.overload(ErrorCode.UNAVAILABLE, "too many commands wait for the room's partition")
