"""What `realtime doctor` concludes from what it saw."""

import pytest

from gateway.cli.doctor.broker_checks import broker_findings
from gateway.cli.doctor.database_checks import database_findings
from gateway.cli.doctor.findings import Finding, Severity, error, ok, warning, worst_first
from gateway.cli.doctor.process_checks import SERVICES, process_findings
from gateway.cli.doctor.reports import BrokerReport, DatabaseReport, MemberReport, ProcessReport, QueueReport

BROKER = BrokerReport("3.13.7", queues=(QueueReport("chat.queries", 0, 2), QueueReport("realtime.dead", 0, 0)))
MEMBERS = tuple(MemberReport(f"db{number}", "SECONDARY", is_healthy=True) for number in range(3))
DATABASE = DatabaseReport(
    version="8.0.4", replica_set="rs0", is_writable=True, members=MEMBERS, user="realtime", is_journaled=True
)
SETTINGS = {"DEV_MODE": "0", "GATEWAY_HOST": "0.0.0.0", "TRUSTED_PROXIES": "10.1.2.0/24", "REQUEST_TIMEOUT_S": "5.0"}
PROCESSES = tuple(
    ProcessReport(
        f"http://{service}-{number}:9100",
        service=service,
        version="0.3.0",
        settings=SETTINGS,
        metrics={"process_max_fds": 65_536.0} | ({"gateway_connections_max": 10_000.0} if service == "gateway" else {}),
    )
    for service in SERVICES
    for number in range(2)
)


def problems(findings: object) -> list[tuple[str, str]]:
    """Return the severity and text of each finding that is no OK, and check that it has a remedy."""
    assert isinstance(findings, list)
    found = [finding for finding in findings if finding.severity is not Severity.OK]
    assert all(finding.remedy for finding in found)
    return [(finding.severity.value, finding.text) for finding in found]


def test_healthy_system_has_no_problem() -> None:
    findings = [*broker_findings(BROKER), *database_findings(DATABASE), *process_findings(PROCESSES)]
    assert problems(findings) == []
    assert {finding.subject for finding in findings} == {"broker", "database", "processes", "versions"}


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        ({"unreachable": {"b:5672": "refused"}, "hosts": 3}, "error", "b:5672 is unreachable: refused"),
        ({"version": "3.8.2"}, "error", "RabbitMQ 3.8.2 is too old"),
        ({"echo_problem": "within 2 s"}, "error", "a message did not come back: within 2 s"),
        ({"queues": (QueueReport("q"),)}, "error", "queue q does not exist"),
        ({"queues": (QueueReport("q", problem="x"),)}, "error", "queue q does not answer, it may have no leader: x"),
        ({"queues": (QueueReport("q", 3, 0),)}, "error", "queue q has no consumer"),
        ({"queues": (QueueReport("q", 3_000, 1),)}, "warning", "3000 messages wait in queue q"),
        ({"queues": (QueueReport("realtime.dead", 7, 0),)}, "warning", "7 dead letters"),
    ],
)
def test_problem_of_broker(change: dict[str, object], severity: str, text: str) -> None:
    assert problems([*broker_findings(BROKER._replace(**change))]) == [(severity, text)]  # type: ignore[arg-type]


def test_unreachable_broker_is_the_only_finding_of_broker() -> None:
    report = BrokerReport(hosts=1, unreachable={"b:5672": "refused"})
    assert problems([*broker_findings(report)]) == [("error", "b:5672 is unreachable: refused")]


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        ({"problem": "the database is unavailable"}, "error", "the database is unavailable"),
        ({"is_writable": False}, "error", "the server that answered is not the primary"),
        ({"replica_set": ""}, "warning", "the server is no member of a replica set: its disk is the only copy"),
        ({"is_journaled": False}, "error", "a majority write is acknowledged before it is on disk"),
        (
            {"members": (*MEMBERS[:2], MemberReport("db2", "RECOVERING", is_healthy=True))},
            "error",
            "member db2 is RECOVERING",
        ),
        (
            {"members": MEMBERS[:1]},
            "warning",
            "the replica set has 1 members: it does not survive the loss of one",
        ),
        ({"skew_ms": -1_500}, "warning", "its clock is 1.5 s off this host's"),
        ({"user": ""}, "warning", "it accepts commands without a login"),
        ({"missing_rights": ("createIndex",)}, "error", "user realtime may not: createIndex"),
    ],
)
def test_problem_of_database(change: dict[str, object], severity: str, text: str) -> None:
    assert problems([*database_findings(DATABASE._replace(**change))]) == [(severity, text)]  # type: ignore[arg-type]


def test_members_that_may_not_be_asked_are_no_problem() -> None:
    assert problems([*database_findings(DATABASE._replace(members=None))]) == []


def changed(service: str, **change: object) -> list[ProcessReport]:
    """Return the processes with a change of the first one of a service."""
    index = next(index for index, report in enumerate(PROCESSES) if report.service == service)
    return [*PROCESSES[:index], PROCESSES[index]._replace(**change), *PROCESSES[index + 1 :]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("service", "change", "severity", "text"),
    [
        ("notifier", {"version": "0.2.0"}, "warning", "different releases run side by side: 0.2.0: notifier; 0.3.0:"),
        ("chat_service", {"reasons": {"partitions": "not owned yet: 3"}}, "error", "partitions: not owned yet: 3"),
        ("gateway", {"metrics": {"clock_skew_seconds": -0.8}}, "warning", "its clock is 0.8 s off"),
        ("gateway", {"metrics": {"log_lines_total{error}": 3.0}}, "warning", "3 errors in its log"),
        (
            "gateway",
            {"metrics": {"gateway_connections_max": 10_000.0, "process_max_fds": 1_024.0}},
            "error",
            "MAX_CONNECTIONS is 10000, and the process may open 1024 files",
        ),
        ("gateway", {"settings": SETTINGS | {"RATE": "7"}}, "", ""),
        ("gateway", {"settings": SETTINGS | {"DEV_MODE": "1"}}, "error", "DEV_MODE"),
        ("gateway", {"settings": SETTINGS | {"TRUSTED_PROXIES": "10.0.0.0/8"}}, "error", "TRUSTED_PROXIES differs"),
    ],
)
def test_problem_of_process(service: str, change: dict[str, object], severity: str, text: str) -> None:
    found = problems([*process_findings(changed(service, **change))])
    assert [one for one in found if one[0] == severity and text in one[1]] or (not text and found == [])


def test_unsafe_settings_of_gateways_are_named() -> None:
    unsafe = SETTINGS | {"DEV_MODE": "1", "TRUSTED_PROXIES": "10.0.0.0/8"}
    reports = [report._replace(settings=unsafe) for report in PROCESSES if report.service == "gateway"]
    texts = {text for _, text in problems([*process_findings(reports)])}
    assert {"DEV_MODE is on, and it listens beyond loopback"} < texts
    assert "TRUSTED_PROXIES contains the wide range 10.0.0.0/8" in texts


def test_missing_and_silent_processes_are_errors_and_single_ones_warnings() -> None:
    silent = ProcessReport("http://gone:9100", "refused")
    found = problems([*process_findings([PROCESSES[0], silent])])
    assert ("error", "does not answer: refused") in found
    assert found.count(("error", "no process was found")) == len(SERVICES) - 1
    assert ("warning", "one process: nothing replaces it while it restarts") in found


def test_release_that_shows_no_settings_is_not_compared() -> None:
    assert problems([*process_findings(changed("gateway", settings=None))]) == []


def test_worst_findings_come_first() -> None:
    findings: list[Finding] = [ok("a", "fine"), warning("b", "odd", "look"), error("c", "bad", "mend")]
    assert [finding.subject for finding in worst_first(findings)] == ["c", "b", "a"]
