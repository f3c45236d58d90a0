"""Checks of the broker: its nodes, its alarms and its queues. Pure."""

from collections.abc import Iterator

from gateway.cli.doctor.findings import Finding, error, ok, warning
from gateway.cli.doctor.reports import BrokerReport, QueueReport

OLDEST = (3, 10)
WAITING_MAX = 1_000
DEAD = "realtime.dead"


def broker_findings(report: BrokerReport) -> Iterator[Finding]:
    """Yield the problems of the broker."""
    for host, reason in report.unreachable.items():
        yield error("broker", f"{host} is unreachable: {reason}", "BrokerLost in docs/operations.md; check AMQP_URL")
    if len(report.unreachable) == report.hosts:
        return
    if _number(report.version) < OLDEST:
        yield error("broker", f"RabbitMQ {report.version} is too old", "RabbitMQ 3.10 or later is needed")
    if report.echo_problem:
        remedy = "`rabbitmqctl list_alarms`: free memory or disk; BrokerLost in docs/operations.md"
        yield error("broker", f"a message did not come back: {report.echo_problem}", remedy)
    problems = [finding for queue in report.queues for finding in _of_queue(queue)]
    yield from problems
    if not problems:
        yield ok("broker", f"RabbitMQ {report.version}, {len(report.queues)} queues have a leader and a consumer")


def _of_queue(queue: QueueReport) -> Iterator[Finding]:
    if queue.problem:
        remedy = f"`rabbitmq-queues quorum_status {queue.name}`; SendsUnconfirmed in docs/operations.md"
        yield error("broker", f"queue {queue.name} does not answer, it may have no leader: {queue.problem}", remedy)
    elif queue.messages is None:
        yield error("broker", f"queue {queue.name} does not exist", "restart a worker: each declares all queues")
    elif queue.name == DEAD:
        if queue.messages:
            remedy = "`realtime dead list` shows the reasons; DeadLetters in docs/operations.md"
            yield warning("broker", f"{queue.messages} dead letters", remedy)
    elif not queue.consumers:
        yield error("broker", f"queue {queue.name} has no consumer", "is its service running and connected?")
    elif queue.messages > WAITING_MAX:
        remedy = "QueueWaits in docs/operations.md"
        yield warning("broker", f"{queue.messages} messages wait in queue {queue.name}", remedy)


def _number(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as 3.13.7 or 4.1.0-rc.1."""
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
