"""`/readyz` names unavailable dependencies and the reason; `/healthz` ignores them."""

import json

import pytest

from tests.e2e.test_whole_system import SERVICES, admin
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem
from tests.support.waiting import until_async

TIMEOUT_S = 60.0
REPORTED_ONLY = {"broker"}  # of gateways
CHECKS = {
    "GATEWAY_1": {"broker", "deliveries", "drain", "clock"},
    "GATEWAY_2": {"broker", "deliveries", "drain", "clock"},
    "CHAT_SERVICE": {"broker", "database", "clock", "partitions"},
    "MARKET_FEED": {"broker", "database", "market"},
    "NOTIFIER": {"broker", "database"},
}


async def reasons_of(system: LocalSystem, name: str) -> dict[str, str]:
    """Return the reasons why a service is not ready, by check. The service must be alive."""
    status, text = await admin(system, name, "/readyz")
    answer = json.loads(text)
    failing = answer["reasons"].keys() - (REPORTED_ONLY if name.startswith("GATEWAY") else set())
    assert (status, answer["status"]) == ((503, "not ready") if failing else (200, "ready"))
    assert answer["reasons"].keys() <= set(answer["checks"])
    alive, body = await admin(system, name, "/healthz")
    assert (alive, json.loads(body)["status"]) == (200, "ok")
    reasons: dict[str, str] = answer["reasons"]
    return reasons


async def wait_for(system: LocalSystem, name: str, *checks: str) -> dict[str, str]:
    """Wait until exactly these checks fail and return their reasons."""
    return await until_async(lambda: reasons_of(system, name), lambda found: found.keys() == set(checks), TIMEOUT_S)


async def wait_until(system: LocalSystem, name: str, check: str) -> dict[str, str]:
    """Wait until this check fails, perhaps among others, and return the reasons."""
    return await until_async(lambda: reasons_of(system, name), lambda found: check in found, TIMEOUT_S)


@pytest.mark.parametrize("name", SERVICES)
async def test_ready_service_names_its_checks(system: LocalSystem, name: str) -> None:
    await wait_for(system, name)
    _, text = await admin(system, name, "/readyz")
    assert set(json.loads(text)["checks"]) == CHECKS[name]


async def test_workers_report_unavailable_database(system: LocalSystem, infrastructure: Infrastructure) -> None:
    infrastructure.database.kill()
    try:
        for name in ("CHAT_SERVICE", "NOTIFIER"):
            found = await wait_for(system, name, "database")
            assert found["database"].startswith("database: the database is unavailable")
        assert (await wait_for(system, "MARKET_FEED", "database"))["database"].startswith("database: ")
        metrics = (await admin(system, "NOTIFIER", "/metrics"))[1]
        assert 'ready{check="database"} 0.0' in metrics
        assert 'ready{check="broker"} 1.0' in metrics
    finally:
        infrastructure.database.start()
    for name in SERVICES:
        await wait_for(system, name)


async def test_all_services_report_unavailable_broker(system: LocalSystem, infrastructure: Infrastructure) -> None:
    infrastructure.broker.kill()
    try:
        for name in SERVICES:
            assert (await wait_until(system, name, "broker"))["broker"] == "broker: not connected"
        assert (await reasons_of(system, "CHAT_SERVICE"))["partitions"] == "partitions: not connected to the broker"
    finally:
        infrastructure.broker.start()
    for name in SERVICES:
        await wait_for(system, name)
