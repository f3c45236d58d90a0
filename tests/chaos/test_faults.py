"""A short run of `make chaos`: some kinds of faults, all traffic, one seed, the same verdict over every item."""

from pathlib import Path

from tests.chaos.plan import Choice, make_plan
from tests.chaos.report import report
from tests.chaos.run import run
from tests.chaos.system import patient
from tests.chaos.traffic import TrafficRates, quiet_connections
from tests.support.infrastructure import Infrastructure
from tests.support.queues import empty_queues

SEED = 6
KINDS = (
    *("kill:gateway", "kill:chat_service", "kill:notifier", "kill:market_feed"),
    *("broker-cut", "database-kill", "cut-clients", "repeat-deliveries", "repeat-events", "broker-kill"),
)


async def test_faults_lose_and_repeat_no_item(infrastructure: Infrastructure, tmp_path: Path) -> None:
    await empty_queues(infrastructure.amqp_url)
    plan = make_plan(SEED, len(KINDS), [Choice.parse(kind) for kind in KINDS], (0.3, 1.2))
    with quiet_connections(), patient(tmp_path, infrastructure) as system:
        outcome = await run(system, plan, SEED, rates=TrafficRates(0.7), until_expired=False)
    assert report(outcome, SEED) == 0
    assert sum(outcome.traffic.counts.values()) > 100
