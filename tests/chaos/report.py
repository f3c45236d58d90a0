"""The table at the end of a run, and the first violation with its history."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.faults import WITNESSES
from tests.chaos.ledger import ViolationKind
from tests.chaos.plan import count_by_kind
from tests.chaos.run import ChaosOutcome

SHOWN_VIOLATIONS = 5  # of each kind


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie, or 0.0 without values."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def rows(outcome: ChaosOutcome) -> Iterator[tuple[str, object]]:
    """Return the figures of a run."""
    ledger, traffic = outcome.ledger, outcome.traffic
    clients = traffic.clients
    took_ms = [(acked_s - sent_s) * 1000 for client in clients for sent_s, acked_s in client.ack_times]
    closes = sum((client.closes for client in clients), Counter[str]())
    yield "faults", len(outcome.done)
    for kind, count in count_by_kind(done.fault for done in outcome.done).items():
        yield f"  {kind}", count
    for what, count in (traffic.counts + outcome.access.counts + outcome.roles.counts + outcome.changes.counts).items():
        yield what, count
    yield "sends repeated by clients", sum(client.resent for client in clients)
    yield "publishes repeated", traffic.publisher.resent
    yield "messages acked", len(took_ms)
    yield "items stored", sum(map(len, ledger.stored.values()))
    yield "items delivered", sum(map(len, ledger.delivered.values()))
    yield "connections ended", sum(closes.values())
    yield "  how", ", ".join(f"{how} {count}" for how, count in closes.most_common())
    yield "ack p50 ms", round(percentile(took_ms, 0.5), 1)
    yield "ack p99 ms", round(percentile(took_ms, 0.99), 1)
    yield "presence true after the last fault, s", round(outcome.presence_s, 1)
    yield "all delivered after the last fault, s", round(outcome.settled_s, 1)
    yield "queues in the end, messages in them", f"{len(outcome.queues)}, {sum(outcome.queues.values())}"
    yield "memory before, after, MiB", ", ".join(f"{name} {a}→{b}" for name, (a, b) in outcome.memory_mib.items())
    found = Counter(violation.kind for violation in outcome.violations)
    for wrong in ViolationKind:
        yield wrong, found[wrong]


def recoveries(outcome: ChaosOutcome) -> Iterator[str]:
    """Return, by kind of fault, the slowest ack of an unharmed client among messages sent around a fault."""
    acks = sorted(pair for client in outcome.traffic.clients[:WITNESSES] for pair in client.ack_times)
    slowest: dict[str, list[float]] = {}
    for done in outcome.done:
        near = [acked - sent for sent, acked in acks if done.begun_s - 1 <= sent <= done.begun_s + 3]
        kind = next(iter(count_by_kind([done.fault])))
        slowest.setdefault(kind, []).append(max(near, default=0.0))
    for kind, times in sorted(slowest.items()):
        yield f"  {kind:28} median {statistics.median(times):5.1f} s, longest {max(times):5.1f} s"


def report(outcome: ChaosOutcome, seed: int) -> int:
    """Print everything and return the number of violations."""
    print("\nslowest ack near a fault")
    for line in recoveries(outcome):
        print(line)
    print()
    for name, value in rows(outcome):
        print(f"  {name:42} {value}")
    for kind in dict.fromkeys(violation.kind for violation in outcome.violations):
        of_kind = [violation for violation in outcome.violations if violation.kind is kind]
        for violation in of_kind[:SHOWN_VIOLATIONS]:
            print(f"\n{violation}")
    if outcome.violations:
        first = outcome.violations[0]
        print(f"\nseed {seed}; the history of the first one, {first}:")
        for line in outcome.ledger.history(first):
            print(f"  {line}")
    print(f"\nseed {seed}: {len(outcome.violations)} violations")
    return len(outcome.violations)
