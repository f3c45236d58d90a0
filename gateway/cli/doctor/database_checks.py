"""Checks of the database: replica set, durability, clock and rights. Pure."""

from collections.abc import Iterator

from gateway.cli.doctor.findings import Finding, error, ok, warning
from gateway.cli.doctor.reports import DatabaseReport

MEMBERS_MIN = 3
SKEW_MAX_MS = 500
HEALTHY = frozenset({"PRIMARY", "SECONDARY", "ARBITER"})
# What the services do. `collMod` is needed only by the migration from 0.2.
NEEDED_RIGHTS = ("find", "insert", "update", "remove", "createCollection", "createIndex")


def database_findings(report: DatabaseReport) -> Iterator[Finding]:
    """Yield the problems of the database."""
    if report.problem:
        yield error("database", report.problem, "DatabaseFailing in docs/operations.md; check MONGODB_URI")
        return
    findings = [*_of_replica_set(report), *_of_access(report)]
    if abs(report.skew_ms) > SKEW_MAX_MS:
        text = f"its clock is {abs(report.skew_ms) / 1000:.1f} s off this host's"
        findings.append(warning("database", text, "repair the time synchronisation of both hosts"))
    yield from findings
    if not findings:
        yield ok("database", f"MongoDB {report.version}, replica set {report.replica_set}, writable")


def _of_replica_set(report: DatabaseReport) -> Iterator[Finding]:
    if not report.is_writable:
        yield error("database", "the server that answered is not the primary", "name all members in MONGODB_URI")
    if not report.replica_set:
        yield warning(
            "database",
            "the server is no member of a replica set: its disk is the only copy",
            "run three members; docs/operations.md",
        )
        return
    if not report.is_journaled:
        remedy = "set writeConcernMajorityJournalDefault to true: rs.reconfig"
        yield error("database", "a majority write is acknowledged before it is on disk", remedy)
    for member in report.members or ():
        if not member.is_healthy or member.state not in HEALTHY:
            yield error("database", f"member {member.name} is {member.state}", "`rs.status()` on the primary")
    if report.members is not None and len(report.members) < MEMBERS_MIN:
        text = f"the replica set has {len(report.members)} members: it does not survive the loss of one"
        yield warning("database", text, "run three members")


def _of_access(report: DatabaseReport) -> Iterator[Finding]:
    if not report.user:
        yield warning("database", "it accepts commands without a login", "turn authentication on; docs/operations.md")
    elif report.missing_rights:
        text = f"user {report.user} may not: {', '.join(report.missing_rights)}"
        yield error("database", text, "grant readWrite on the product's database")
