"""The faults of a run, their durations and pauses, all determined by the seed. Pure."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple


class Kind(StrEnum):
    """The kinds of faults."""

    KILL = "kill"  # SIGKILL; the supervisor restarts the process
    TERM = "term"  # SIGTERM; the supervisor restarts the process
    FREEZE = "freeze"  # SIGSTOP, later SIGCONT
    BROKER_KILL = "broker-kill"
    BROKER_RESTART = "broker-restart"
    BROKER_CUT = "broker-cut"  # the broker closes every connection
    BROKER_ALARM = "broker-alarm"  # memory alarm: the broker blocks publishers
    DATABASE_KILL = "database-kill"
    DATABASE_RESTART = "database-restart"
    CUT_CLIENTS = "cut-clients"  # sockets dropped without a close frame
    STUCK_CLIENTS = "stuck-clients"  # clients stop reading
    SLOW_CLIENTS = "slow-clients"  # clients read only now and then
    REPEAT_DELIVERIES = "repeat-deliveries"  # delivery lines published twice
    REPEAT_EVENTS = "repeat-events"  # events published twice under their ids


SERVICES = ("gateway", "chat_service", "notifier", "market_feed")
_WEIGHTS = {
    Kind.KILL: 22,
    Kind.TERM: 4,
    Kind.FREEZE: 14,
    Kind.BROKER_KILL: 4,
    Kind.BROKER_RESTART: 3,
    Kind.BROKER_CUT: 8,
    Kind.BROKER_ALARM: 4,
    Kind.DATABASE_KILL: 7,
    Kind.DATABASE_RESTART: 4,
    Kind.CUT_CLIENTS: 8,
    Kind.STUCK_CLIENTS: 5,
    Kind.SLOW_CLIENTS: 4,
    Kind.REPEAT_DELIVERIES: 7,
    Kind.REPEAT_EVENTS: 6,
}
_HOLD_MAX_S = {
    Kind.FREEZE: 12.0,  # longer than every lease and the broker's heartbeat
    Kind.BROKER_KILL: 6.0,
    Kind.BROKER_RESTART: 2.0,
    Kind.BROKER_ALARM: 8.0,
    Kind.DATABASE_KILL: 6.0,
    Kind.DATABASE_RESTART: 2.0,
    Kind.STUCK_CLIENTS: 15.0,
    Kind.SLOW_CLIENTS: 15.0,
}
_NEEDS_PROCESS = {Kind.KILL, Kind.TERM, Kind.FREEZE}
REPLICAS = 2


class Fault(NamedTuple):
    """One fault: starts `pause_s` after the previous one, lasts `hold_s`, hits `target` (a process, or everything)."""

    number: int
    kind: Kind
    target: str
    pause_s: float
    hold_s: float

    def __str__(self) -> str:
        held = f" for {self.hold_s:.1f} s" if self.hold_s else ""
        return f"{self.kind} {self.target}{held}".replace("  ", " ")


class Choice(NamedTuple):
    """A kind to draw, and for kills and freezes a service."""

    kind: Kind
    service: str = ""

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """Parse `broker-kill`, `kill` or `kill:chat_service`. Raises ValueError."""
        kind, _, service = text.partition(":")
        if service and (service not in SERVICES or Kind(kind) not in _NEEDS_PROCESS):
            raise ValueError(f"{text}: no such fault")
        return cls(Kind(kind), service)


EVERYTHING = tuple(Choice(kind) for kind in Kind)


def make_plan(
    seed: int, count: int, choices: Sequence[Choice] = EVERYTHING, pauses_s: tuple[float, float] = (1.5, 5.0)
) -> list[Fault]:
    """Return `count` faults. Every choice occurs at least once if `count` allows; the rest are drawn by weight."""
    random = Random(seed)
    drawn = list(choices)[:count]
    weights = [_WEIGHTS[choice.kind] for choice in choices]
    drawn += random.choices(choices, weights, k=count - len(drawn))
    random.shuffle(drawn)
    return [_fault(random, number, choice, pauses_s) for number, choice in enumerate(drawn, 1)]


def _fault(random: Random, number: int, choice: Choice, pauses_s: tuple[float, float]) -> Fault:
    target = ""
    if choice.kind in _NEEDS_PROCESS:
        target = f"{choice.service or random.choice(SERVICES)}-{random.randint(1, REPLICAS)}"
    longest_s = _HOLD_MAX_S.get(choice.kind, 0.0)
    return Fault(number, choice.kind, target, random.uniform(*pauses_s), random.uniform(0.3, 1.0) * longest_s)


def count_by_kind(faults: Iterable[Fault]) -> dict[str, int]:
    """Return the number of faults per kind; kills and freezes per service."""
    counts: dict[str, int] = {}
    for fault in faults:
        name = f"{fault.kind} {fault.target.rpartition('-')[0]}".strip()
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
