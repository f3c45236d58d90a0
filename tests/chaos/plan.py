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
    DATABASE_SLOW = "database-slow"  # replies to writes are late
    DATABASE_UNCONFIRMED = "database-unconfirmed"  # writes are made, but no majority confirms them
    DATABASE_CUT = "database-cut"  # writes are made, and the connection is cut instead of a reply
    DATABASE_REFUSE = "database-refuse"  # writes are refused: not primary
    DATABASE_LATE = "database-late"  # one insert into the log is held and lands late
    SKEW = "skew"  # SIGKILL; the process restarts with a wall clock 1.5 s ahead or behind
    HAND_OVER = "hand-over"  # a further chat_service starts, takes partitions, and stops
    NODE_KILL = "node-kill"  # of a broker cluster
    NODE_FREEZE = "node-freeze"
    NODE_RESTART = "node-restart"
    CUT_CLIENTS = "cut-clients"  # sockets dropped without a close frame
    STUCK_CLIENTS = "stuck-clients"  # clients stop reading
    SLOW_CLIENTS = "slow-clients"  # clients read only occasionally
    STORM = "storm"  # strangers arrive all at once, and leave all at once
    REPEAT_DELIVERIES = "repeat-deliveries"  # delivery lines published twice
    REPEAT_EVENTS = "repeat-events"  # events published twice under their ids


OF_CLUSTER = {Kind.NODE_KILL, Kind.NODE_FREEZE, Kind.NODE_RESTART}
OF_SINGLE_BROKER = {Kind.BROKER_KILL, Kind.BROKER_RESTART}
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
    Kind.DATABASE_SLOW: 5,
    Kind.DATABASE_UNCONFIRMED: 6,
    Kind.DATABASE_CUT: 6,
    Kind.DATABASE_REFUSE: 5,
    Kind.DATABASE_LATE: 6,
    Kind.SKEW: 6,
    Kind.HAND_OVER: 8,
    Kind.NODE_KILL: 8,
    Kind.NODE_FREEZE: 5,
    Kind.NODE_RESTART: 4,
    Kind.CUT_CLIENTS: 8,
    Kind.STUCK_CLIENTS: 5,
    Kind.SLOW_CLIENTS: 4,
    Kind.STORM: 4,
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
    Kind.DATABASE_SLOW: 8.0,
    Kind.DATABASE_UNCONFIRMED: 6.0,
    Kind.DATABASE_CUT: 3.0,
    Kind.DATABASE_REFUSE: 5.0,
    Kind.DATABASE_LATE: 12.0,  # longer than a command's TTL and the driver's time-out
    Kind.HAND_OVER: 12.0,
    Kind.NODE_KILL: 6.0,
    Kind.NODE_FREEZE: 10.0,  # longer than net_ticktime
    Kind.STUCK_CLIENTS: 15.0,
    Kind.SLOW_CLIENTS: 15.0,
    Kind.STORM: 8.0,
}
_NEEDS_PROCESS = {Kind.KILL, Kind.TERM, Kind.FREEZE, Kind.SKEW}
REPLICAS = 2
NODES = 3


class Fault(NamedTuple):
    """One fault: starts `pause_s` after the previous one and lasts `hold_s`.

    `target` is a process or a node; it is empty if the fault hits everything.
    """

    number: int
    kind: Kind
    target: str
    pause_s: float
    hold_s: float

    def __str__(self) -> str:
        held = f" for {self.hold_s:.1f} s" if self.hold_s else ""
        return f"{self.kind} {self.target}{held}".replace("  ", " ")


class Choice(NamedTuple):
    """A kind to draw, and for faults of a process a service."""

    kind: Kind
    service: str = ""

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """Parse `broker-kill`, `kill` or `kill:chat_service`. Raises ValueError."""
        kind, _, service = text.partition(":")
        if service and (service not in SERVICES or Kind(kind) not in _NEEDS_PROCESS):
            raise ValueError(f"{text}: no such fault")
        return cls(Kind(kind), service)


EVERYTHING = tuple(Choice(kind) for kind in Kind if kind not in OF_CLUSTER)
EVERYTHING_ON_CLUSTER = tuple(Choice(kind) for kind in Kind if kind not in OF_SINGLE_BROKER)


def make_plan(
    seed: int, count: int, choices: Sequence[Choice] = EVERYTHING, pauses_s: tuple[float, float] = (1.5, 5.0)
) -> list[Fault]:
    """Return `count` faults.

    Every choice occurs at least once if `count` allows, otherwise at most once; the rest are drawn by weight.
    """
    random = Random(seed)
    drawn = list(choices) if count >= len(choices) else random.sample(list(choices), count)
    weights = [_WEIGHTS[choice.kind] for choice in choices]
    drawn += random.choices(choices, weights, k=count - len(drawn))
    random.shuffle(drawn)
    return [_fault(random, number, choice, pauses_s) for number, choice in enumerate(drawn, 1)]


def _fault(random: Random, number: int, choice: Choice, pauses_s: tuple[float, float]) -> Fault:
    target = ""
    if choice.kind in _NEEDS_PROCESS:
        target = f"{choice.service or random.choice(SERVICES)}-{random.randint(1, REPLICAS)}"
    elif choice.kind in OF_CLUSTER:
        target = f"node-{random.randint(1, NODES)}"
    longest_s = _HOLD_MAX_S.get(choice.kind, 0.0)
    return Fault(number, choice.kind, target, random.uniform(*pauses_s), random.uniform(0.3, 1.0) * longest_s)


def count_by_kind(faults: Iterable[Fault]) -> dict[str, int]:
    """Return the number of faults per kind; those of processes per service."""
    counts: dict[str, int] = {}
    for fault in faults:
        name = f"{fault.kind} {fault.target.rpartition('-')[0]}".strip()
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
