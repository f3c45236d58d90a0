"""Checks of the processes: do they answer, are they ready, and do their versions and settings agree? Pure."""

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gateway.cli.doctor.findings import Finding, error, ok, warning
from gateway.cli.doctor.reports import ProcessReport

SERVICES = ("gateway", "chat_service", "market_feed", "notifier")
SKEW_MAX_S = 0.5
RESERVED_FILES = 320  # of a gateway, in addition to its sockets
PROXY_ADDRESSES_MAX = 65_536
# Settings that may differ between processes of one service.
OWN_SETTINGS = frozenset({"ADMIN_HOST", "ADMIN_PORT", "GATEWAY_HOST", "GATEWAY_PORT", "LOG_LEVEL", "LOG_FORMAT"})
# Settings that all services share.
COMMON_SETTINGS = frozenset({"MONGODB_DATABASE", "REQUEST_TIMEOUT_S"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def process_findings(reports: Sequence[ProcessReport]) -> Iterator[Finding]:
    """Yield the problems of the processes."""
    for report in reports:
        if report.problem:
            yield error(report.url, f"does not answer: {report.problem}", "TargetDown in docs/operations.md")
    running = [report for report in reports if not report.problem]
    yield from _of_replicas(running)
    yield from _of_versions(running)
    for report in running:
        yield from _of_one(report)
    yield from _of_settings(running)


def _of_replicas(running: Sequence[ProcessReport]) -> Iterator[Finding]:
    counts = Counter(report.service for report in running)
    for service in SERVICES:
        if counts[service] == 0:
            yield error(service, "no process was found", "start one, or name its address with --admin")
        elif counts[service] == 1:
            yield warning(service, "one process: nothing replaces it while it restarts", "run two or more")
    yield ok("processes", ", ".join(f"{service} {counts[service]}" for service in SERVICES if counts[service]))


def _of_versions(running: Sequence[ProcessReport]) -> Iterator[Finding]:
    by_version: dict[str, set[str]] = {}
    for report in running:
        by_version.setdefault(report.version, set()).add(report.service)
    if len(by_version) > 1:
        shown = "; ".join(f"{version}: {', '.join(sorted(found))}" for version, found in sorted(by_version.items()))
        remedy = "finish the upgrade in its order: Upgrade and rollback in docs/operations.md"
        yield warning("versions", f"different releases run side by side: {shown}", remedy)
    elif by_version:
        yield ok("versions", f"every process runs {next(iter(by_version))}")


def _of_one(report: ProcessReport) -> Iterator[Finding]:
    subject = f"{report.service} {report.url}"
    for check, reason in report.reasons.items():
        yield error(subject, f"{check}: {reason}", "NotReady in docs/operations.md")
    metrics = report.metrics
    if abs(skew_s := metrics.get("clock_skew_seconds", 0.0)) > SKEW_MAX_S:
        remedy = "repair the time synchronisation of the host; at 2 s the process is not ready"
        yield warning(subject, f"its clock is {abs(skew_s):.1f} s off the database server's", remedy)
    if (errors := metrics.get("log_lines_total{error}", 0.0)) > 0:
        yield warning(subject, f"{errors:.0f} errors in its log", "read it: ErrorsLogged in docs/operations.md")
    sockets, files = metrics.get("gateway_connections_max"), metrics.get("process_max_fds")
    if sockets is not None and files is not None and files < sockets + RESERVED_FILES:
        remedy = f"raise `ulimit -n` to {sockets + RESERVED_FILES:.0f}, or lower MAX_CONNECTIONS"
        yield error(subject, f"MAX_CONNECTIONS is {sockets:.0f}, and the process may open {files:.0f} files", remedy)


# Settings -----------------------------------------------------------------------------------------------------------


def _of_settings(running: Sequence[ProcessReport]) -> Iterator[Finding]:
    for service in SERVICES:
        same = [report for report in running if report.service == service]
        names = {name for report in same for name in report.settings or {}} - OWN_SETTINGS - COMMON_SETTINGS
        for name in sorted(names):
            yield from _of_setting(service, name, same)
    for name in sorted(COMMON_SETTINGS):
        yield from _of_setting("all services", name, running)
    for report in running:
        if report.service == "gateway" and report.settings is not None:
            yield from _of_gateway(f"gateway {report.url}", report.settings)


def _of_setting(subject: str, name: str, reports: Sequence[ProcessReport]) -> Iterator[Finding]:
    values = {report.settings[name] for report in reports if report.settings is not None and name in report.settings}
    if len(values) > 1:
        shown = " and ".join(sorted(values))
        yield error(subject, f"{name} differs between processes: {shown}", "give all the same value and restart them")


def _of_gateway(subject: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    if settings.get("DEV_MODE") == "1" and settings.get("GATEWAY_HOST") not in LOOPBACK:
        yield error(subject, "DEV_MODE is on, and it listens beyond loopback", "set DEV_MODE=0: it hands out tokens")
    for network in filter(None, settings.get("TRUSTED_PROXIES", "").split(",")):
        if ipaddress.ip_network(network, strict=False).num_addresses > PROXY_ADDRESSES_MAX:
            remedy = "name the load balancer's own range: a client within a trusted range chooses its address"
            yield warning(subject, f"TRUSTED_PROXIES contains the wide range {network}", remedy)
