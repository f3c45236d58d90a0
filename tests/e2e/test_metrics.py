"""Metrics of the running services match their declarations: names, label values, and no ids."""

import re
from collections.abc import Iterator
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.tools.metrics_page import LABELS, MODULES, declared
from tests.e2e.test_whole_system import GATEWAYS, SERVICES, admin, notification, subscribed
from tests.support.events import publish
from tests.support.local_system import LocalSystem
from tests.support.people import people
from tests.support.waiting import until_async

TIMEOUT_S = 30.0
DECLARED = {row.name.removesuffix("_total").removesuffix("_info") for m in MODULES.values() for row in declared(m)}
LIBRARY = re.compile(r"(process|python)_.*")


async def samples(system: LocalSystem, service: str) -> list[Sample]:
    status, text = await admin(system, service, "/metrics")
    assert status == 200
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def total(found: list[Sample], name: str, **labels: str) -> float:
    """Return the sum of the samples of a name with these labels."""
    return sum(sample.value for sample in found if sample.name == name and labels.items() <= sample.labels.items())


async def counted(system: LocalSystem) -> float:
    """Wait for the fan-out's counters, which reach the registry twice a second."""
    gateways = [sample for name in GATEWAYS for sample in await samples(system, name)]
    return total(gateways, "gateway_frames_out_total", way="fanout")


@pytest.fixture(scope="module")
async def used(system: LocalSystem) -> dict[str, str]:
    """Yield the system after every kind of traffic, and the ids that occurred."""
    meet = people(system.entries()["GATEWAY_URL"])
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    async with await alice.live() as live, await bob.live() as other:
        await subscribed(live, "chatroom", chatroomId=room)
        await subscribed(live, "market", symbols=["EUR/USD"])
        await subscribed(live, "notifications")
        await other.ask("chat:send", chatroomId=room, message="hello")
        message_id = (await live.data("chat:message"))["messageId"]
        await other.ask("chat:typing", chatroomId=room, isTyping=True)
        await other.send_text("nonsense")
        await other.barrier()
        await publish(system.entries()["AMQP_URL"], "notification.created", notification(alice.id, "title"))
        await live.next("notification:new")
    await alice.call("GET", f"/v1/chatrooms/{room}")
    await until_async(lambda: counted(system), lambda count: count > 0, TIMEOUT_S)
    await alice.call("PROPFIND", f"/v1/{room}")
    return {"alice": alice.id, "bob": bob.id, "room": room, "message": message_id}


def strays(found: list[Sample]) -> Iterator[str]:
    """Return the exported names and labels that no page documents."""
    for sample in found:
        if LIBRARY.fullmatch(sample.name):
            continue
        if re.sub(r"_(total|bucket|count|sum|info)\Z", "", sample.name) not in DECLARED | {"build"}:
            yield sample.name
        for label, value in sample.labels.items():
            if label not in LABELS:
                if label != "le" and sample.name != "build_info":
                    yield f"{sample.name}: {label}"
            elif not re.fullmatch(LABELS[label].pattern, value):
                yield f"{sample.name}: {label}={value}"


@pytest.mark.parametrize("service", SERVICES)
async def test_service_exports_declared_metrics_without_ids(
    system: LocalSystem, used: dict[str, str], service: str
) -> None:
    found = await samples(system, service)
    assert list(strays(found)) == []
    values = {value for sample in found for value in sample.labels.values()}
    assert not [value for value in values for id_ in used.values() if id_ in value]
    assert "PROPFIND" not in " ".join(values)


@pytest.mark.parametrize("service", SERVICES)
async def test_service_exports_build_and_health(system: LocalSystem, used: dict[str, str], service: str) -> None:
    found = await samples(system, service)
    (build,) = [sample for sample in found if sample.name == "build_info"]
    assert build.labels["service"] in service.lower()
    assert build.labels["version"]
    assert total(found, "bus_connected") == 1
    assert total(found, "event_loop_lag_seconds_count") > 0
    assert total(found, "event_loop_tasks") > 3
    assert total(found, "log_lines_total", level="info") > 0
    assert total(found, "process_open_fds") > 0
    assert total(found, "ready", check="broker") == 1


async def test_traffic_is_counted_on_its_path(system: LocalSystem, used: dict[str, str]) -> None:
    gateways = [sample for name in GATEWAYS for sample in await samples(system, name)]
    assert total(gateways, "gateway_frames_in_total", type="chat:send") >= 1
    assert total(gateways, "gateway_frames_in_total", type="auth") >= 2
    assert total(gateways, "gateway_frames_in_total", type="other") >= 1
    assert total(gateways, "gateway_frames_in_total", type="ping") >= 1
    assert total(gateways, "gateway_errors_out_total", code="BAD_FRAME") >= 1
    assert total(gateways, "gateway_bytes_in_total") > 500
    assert total(gateways, "gateway_closes_total", by="client") >= 2
    assert total(gateways, "gateway_connections_opened_total") >= 2
    assert total(gateways, "gateway_deliveries_in_total", kind="ordered") >= 2
    assert total(gateways, "gateway_bodies_in_total") >= 1
    assert total(gateways, "gateway_delivery_seconds_count") >= 1
    assert total(gateways, "gateway_delivery_seconds_bucket", le="10.0") >= 1
    for way in ("fanout", "answer"):
        assert total(gateways, "gateway_bytes_out_total", way=way) > total(
            gateways, "gateway_frames_out_total", way=way
        )
        assert total(gateways, "gateway_frames_out_total", way=way) >= 2
    assert total(gateways, "gateway_connections_max") == 20_000
    assert total(gateways, "gateway_presence_lease_seconds") > 2
    assert total(gateways, "gateway_rest_seconds_count", route="none", status="404") >= 1
    assert total(gateways, "request_seconds_count", op="send", outcome="ok") >= 1

    # Gateways are ready before their presence lease has begun.
    chat = await until_async(
        lambda: samples(system, "CHAT_SERVICE"),
        lambda found: total(found, "chat_presence_reports_total", kind="full") >= 2,
    )
    assert total(chat, "chat_messages_stored_total") >= 1
    assert total(chat, "chat_partition_owned") == 16
    assert total(chat, "chat_replicas") == 1
    assert 0 < total(chat, "chat_lease_seconds") <= 5
    assert total(chat, "chat_presence_changes_total", status="online") >= 2
    assert total(chat, "bus_wait_seconds_count") >= 1
    assert total(chat, "mongo_seconds_count", collection="room_log", command="insert") >= 1

    notifier = await samples(system, "NOTIFIER")
    assert total(notifier, "notifier_entries_stored_total") >= 1
    assert total(notifier, "mongo_seconds_count", collection="notifications") >= 1

    market = await samples(system, "MARKET_FEED")
    assert total(market, "market_tick_age_seconds_count", source="sim") >= 1
    assert total(market, "market_lease_seconds") > 0


async def test_opened_connections_equal_open_plus_closed(system: LocalSystem, used: dict[str, str]) -> None:
    def adds_up(found: list[Sample]) -> bool:
        opened = total(found, "gateway_connections_opened_total")
        return opened == total(found, "gateway_connections") + total(found, "gateway_closes_total")

    for name in GATEWAYS:
        await until_async(partial(samples, system, name), adds_up, TIMEOUT_S)


QUEUES = {
    "CHAT_SERVICE": {"chat.queries", "chat.presences", "chat.users"},
    "MARKET_FEED": {"market.queries", "market.ticks"},
    "NOTIFIER": {"notifier.queries", "notifier.events", "notifier.ticks", "notifier.verdicts"},
}


@pytest.mark.parametrize("service", QUEUES)
async def test_worker_exports_queue_depth(system: LocalSystem, service: str) -> None:
    def all_are_exported(found: list[Sample]) -> bool:
        return QUEUES[service] <= {sample.labels["queue"] for sample in found if sample.name == "bus_queue_depth"}

    await until_async(lambda: samples(system, service), all_are_exported, TIMEOUT_S)
