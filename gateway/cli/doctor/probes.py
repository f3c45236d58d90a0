"""The probes of `doctor`: HTTP to the admin servers, AMQP to the broker, commands to the database."""

import asyncio
import http.client
import ipaddress
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from gateway.cli.doctor.broker_checks import broker_findings
from gateway.cli.doctor.database_checks import NEEDED_RIGHTS, database_findings
from gateway.cli.doctor.findings import Finding, warning, worst_first
from gateway.cli.doctor.process_checks import process_findings
from gateway.cli.doctor.reports import BrokerReport, DatabaseReport, MemberReport, ProcessReport, QueueReport
from gateway.cli.settings import CliSettings
from shared.bus.amqp import CONNECTION_LOST_ERRORS
from shared.bus.broker_connection import BrokerConnection
from shared.bus.hosts import BrokerHosts
from shared.bus.topology import queues
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from shared.mongo import Mongo, translated

TIMEOUT_S = 5.0
ECHO_TIMEOUT_S = 2.0
SHOWN_REASON = 200


async def examine(settings: CliSettings, admin_urls: Sequence[str]) -> list[Finding]:
    """Look at the processes, the broker and the database, and return the findings, the worst first."""
    broker = asyncio.create_task(_broker(settings.amqp_url))
    database = asyncio.create_task(_database(settings)) if settings.mongodb_uri else None
    addresses = [address for url in admin_urls for address in await asyncio.to_thread(_addresses, url)]
    reports = await asyncio.gather(*(asyncio.to_thread(_process, address) for address in addresses))
    findings = [*broker_findings(await broker)]
    if database is not None:
        findings += database_findings(await database)
    else:
        findings.append(warning("database", "was not looked at", "set MONGODB_URI"))
    if reports:
        findings += process_findings(reports)
    else:
        findings.append(warning("processes", "were not looked at", "give --admin URL, or set ADMIN_URLS"))
    return worst_first(findings)


# Processes ----------------------------------------------------------------------------------------------------------


def _addresses(url: str) -> list[str]:
    """Return the URL once for each IPv4 address of its host, or as it is if the host cannot be resolved."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return [url]
    hosts = sorted({str(address[0]) for *_, address in found}, key=ipaddress.ip_address)
    return [f"{parts.scheme}://{host}:{parts.port}" for host in hosts]


def _process(url: str) -> ProcessReport:
    try:
        scraped = _fetch(f"{url}/metrics").decode()
        ready = json.loads(_fetch(f"{url}/readyz"))
        shown = _fetch_optional(f"{url}/settings")
        build, metrics = _read_metrics(scraped)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return ProcessReport(url, str(problem)[:SHOWN_REASON] or type(problem).__name__)
    settings = None if shown is None else json.loads(shown)
    return ProcessReport(
        url, "", build.get("service", ""), build.get("version", ""), ready["reasons"], settings, metrics
    )


def _fetch(url: str) -> bytes:
    """Return the body of an answer, of 503 too."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s) by the settings
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return error.read()


def _fetch_optional(url: str) -> bytes | None:
    try:
        return _fetch(url)
    except urllib.error.HTTPError:
        return None


def _read_metrics(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """Return the labels of `build_info`, and the samples by name; those with a level as `name{level}`."""
    build: dict[str, str] = {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "build_info":
                build = sample.labels
            level = sample.labels.get("level")
            found[sample.name if level is None else f"{sample.name}{{{level}}}"] = sample.value
    return build, found


# Broker -------------------------------------------------------------------------------------------------------------


async def _broker(amqp_url: str) -> BrokerReport:
    urls = BrokerHosts(amqp_url).urls
    unreachable: dict[str, str] = {}
    report = BrokerReport(hosts=len(urls))
    for url in urls:
        try:
            connection = await BrokerConnection.open(BrokerHosts(url), new_id(Prefix.NODE))
        except CONNECTION_LOST_ERRORS as error:
            parts = urlsplit(url)
            unreachable[f"{parts.hostname}:{parts.port or 5672}"] = str(error)[:SHOWN_REASON]
            continue
        try:
            if not report.version:
                found = await asyncio.gather(*(_queue(connection, spec.name) for spec in queues()))
                report = report._replace(version=connection.server_version, queues=tuple(found))
            report = report._replace(echo_problem=report.echo_problem or await _echo_problem(connection))
        finally:
            await connection.close()
    return report._replace(unreachable=unreachable)


async def _queue(connection: BrokerConnection, name: str) -> QueueReport:
    try:
        counts = await connection.objects.counts(name)
    except CONNECTION_LOST_ERRORS as error:
        return QueueReport(name, problem=str(error)[:SHOWN_REASON] or "no answer in time")
    return QueueReport(name) if counts is None else QueueReport(name, counts.messages, counts.consumers)


async def _echo_problem(connection: BrokerConnection) -> str:
    """Send a message through a queue of this connection; return why it did not come back, or an empty text."""
    queue = f"echo.{new_id(Prefix.NODE)}.1"
    back = asyncio.Event()
    try:
        async with asyncio.timeout(ECHO_TIMEOUT_S):
            await connection.declare_private(queue, {})
            await connection.listen(queue, lambda _: back.set())
            connection.send("", queue, b"doctor")
            await back.wait()
    except TimeoutError:
        return f"within {ECHO_TIMEOUT_S:g} s"
    except CONNECTION_LOST_ERRORS as error:
        return str(error)[:SHOWN_REASON]
    return ""


# Database -----------------------------------------------------------------------------------------------------------


async def _database(settings: CliSettings) -> DatabaseReport:
    mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=TIMEOUT_S)
    try:
        with translated():
            return await _examined(mongo)
    except Unavailable as error:
        return DatabaseReport(str(error)[:SHOWN_REASON])
    finally:
        mongo.close()


async def _examined(mongo: Mongo) -> DatabaseReport:
    """Ask the server about itself. What its user may not ask stays unknown. Raises Unavailable."""
    admin = mongo.database.client["admin"]
    before_ms = time.time() * 1000
    hello = await admin.command("hello")
    after_ms = time.time() * 1000
    server_time: datetime = hello["localTime"]
    build = await admin.command("buildInfo")
    members, is_journaled = await _replica_set(admin)
    user, missing = await _rights(mongo)
    return DatabaseReport(
        version=str(build["version"]),
        replica_set=str(hello.get("setName", "")),
        is_writable=bool(hello.get("isWritablePrimary")),
        skew_ms=round(server_time.timestamp() * 1000 - (before_ms + after_ms) / 2),
        members=members,
        is_journaled=is_journaled,
        user=user,
        missing_rights=missing,
    )


async def _replica_set(admin: Any) -> tuple[tuple[MemberReport, ...] | None, bool]:
    """Return the members, and whether majority writes wait for the journal, as far as the user may ask."""
    try:
        with translated():
            status = await admin.command("replSetGetStatus")
            config = await admin.command("replSetGetConfig")
    except Unavailable:
        return None, True
    members = tuple(MemberReport(one["name"], one["stateStr"], bool(one["health"])) for one in status["members"])
    return members, bool(config["config"].get("writeConcernMajorityJournalDefault", True))


async def _rights(mongo: Mongo) -> tuple[str, tuple[str, ...]]:
    """Return the user, and the needed actions on the database that it lacks."""
    status = await mongo.database.command("connectionStatus", showPrivileges=True)
    info = status["authInfo"]
    users = info.get("authenticatedUsers", [])
    if not users:
        return "", ()
    granted = set(_granted(info.get("authenticatedUserPrivileges", []), mongo.database.name))
    missing = tuple(action for action in NEEDED_RIGHTS if action not in granted and "anyAction" not in granted)
    return str(users[0]["user"]), missing


def _granted(privileges: Sequence[dict[str, Any]], database: str) -> Iterator[str]:
    """Yield the actions that apply to all collections of the database."""
    for privilege in privileges:
        resource = privilege["resource"]
        if resource.get("anyResource") or (resource.get("db") in ("", database) and not resource.get("collection")):
            yield from privilege["actions"]
