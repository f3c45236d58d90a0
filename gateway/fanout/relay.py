"""The relay: reads delivery lines from this gateway's queue and passes each on.

A control goes to `on_control`, an answer to `on_answer`, a trace to the tracer, any other line to the hub.
"""

import asyncio
from collections.abc import Callable

from gateway import metrics
from gateway.fanout.activity_feed import ActivityFeed
from gateway.fanout.controls import OnControl, guarded
from gateway.fanout.frame_peek import message_ids
from gateway.fanout.gap_filler import GapFiller
from gateway.fanout.hub import Hub
from gateway.fanout.stall import StallGuard
from gateway.fanout.typing_expiry import TypingExpiry
from shared.bus.delivery import ANSWERS, Delivery, DeliveryKind
from shared.errors import Malformed
from shared.telemetry import logs, tracing

log = logs.get(__name__)

OnAnswer = Callable[[Delivery], None]
OnMissed = Callable[[], None]
OnEvicted = Callable[[], None]


class Relay:
    """Feeds the hub of one gateway process.

    `on_control` receives each CONTROL delivery, `on_answer` each answer to a command. `on_missed` is called when direct
    messages were lost in rooms that a socket has not joined. `on_evicted` is called after each body, and
    unsubscribes the sockets that channels have evicted.
    """

    def __init__(
        self,
        hub: Hub,
        gaps: GapFiller,
        stall: StallGuard,
        on_control: OnControl,
        on_answer: OnAnswer,
        on_missed: OnMissed,
        on_evicted: OnEvicted,
        activity: ActivityFeed,
    ) -> None:
        self._hub = hub
        self._gaps = gaps
        self._stall = stall
        self._on_control = guarded(on_control)
        self._on_answer = on_answer
        self._on_missed = on_missed
        self._on_evicted = on_evicted
        self._activity = activity
        self._loop = asyncio.get_running_loop()
        self._typing = TypingExpiry()
        self._lines = dict.fromkeys(DeliveryKind, 0)  # counts since the last `measure`
        self._bodies = 0

    def on_body(self, body: bytes) -> None:
        """Process one AMQP message, in one pass over its lines. HOT."""
        now_s = self._loop.time()
        if self._stall.refuses(now_s):
            return
        self._bodies += 1
        if logs.details:
            self._log_messages(body)
        for line in body.split(b"\n"):
            try:
                delivery = Delivery.from_line(line)
            except Malformed as error:
                log.error("bad_delivery_line", reason=str(error))
                continue
            self._lines[delivery.kind] += 1
            if self._activity.is_used:
                self._activity.deliver(delivery)
            if delivery.kind in ANSWERS:
                self._on_answer(delivery)
            elif delivery.kind is DeliveryKind.CONTROL:
                self._on_control(delivery)
            elif delivery.kind is DeliveryKind.TRACE:
                if delivery.channel in self._hub.channels:
                    tracing.mark("deliver", delivery.key)
            else:
                if delivery.kind is DeliveryKind.TRANSIENT and delivery.channel in self._hub.channels:
                    self._typing.note(delivery, now_s)
                self._hub.deliver(delivery, now_s)
        self._on_evicted()
        if self._hub.gaps:
            self._gaps.fill_gaps()
        if self._hub.directs.has_missed:
            self._hub.directs.has_missed = False
            self._on_missed()

    def end_typing(self) -> None:
        """Deliver the end of each typing mark whose own end did not arrive in time."""
        now_s = self._loop.time()
        for end in self._typing.overdue(now_s):
            self._hub.deliver(end, now_s)

    def measure(self) -> None:
        """Add the plain integer counts to the metrics."""
        for kind, lines in self._lines.items():
            metrics.DELIVERIES_IN.labels(kind.name.lower()).inc(lines)
        metrics.BODIES_IN.inc(self._bodies)
        metrics.CHANNELS.set(len(self._hub.channels))
        self._lines, self._bodies = dict.fromkeys(DeliveryKind, 0), 0

    def _log_messages(self, body: bytes) -> None:
        """Log the id of each message, which is also the id of the command that sent it."""
        for message_id in message_ids(body):
            log.debug("message_arrived", request_id=message_id)
