"""One message through gateway, broker, worker and database, followed by OpenTelemetry spans and request ids."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry import tracing
from tests.support.events import cloud_event, publish
from tests.support.live_client import LiveClient
from tests.support.people import people
from tests.support.services import chat_service, gateway, gateway_alone, notifier
from tests.support.tokens import mint
from tests.support.waiting import until

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
TRACEPARENT = f"00-{TRACE_ID:032x}-b7ad6b7169203331-01"


@pytest.fixture
async def url(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[str]:
    async with chat_service(amqp_url, mongodb_uri, database_name), gateway_alone(amqp_url) as running:
        yield running


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.turn_on(provider)
    yield exporter
    tracing.turn_off()


def paths(exporter: InMemorySpanExporter, root: str) -> set[str]:
    """Return every span below a root span, as the path of names that leads to it."""
    spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context is not None}

    def path(span: ReadableSpan) -> str:
        above = None if span.parent is None else spans.get(span.parent.span_id)
        return span.name if above is None else f"{path(above)} > {span.name}"

    return {found for span in spans.values() if (found := path(span)).startswith(root)}


async def test_message_is_traced_from_frame_to_log(url: str, exported: InMemorySpanExporter) -> None:
    alice = people(url)("alice")
    room = await alice.create_room()
    async with await alice.live() as live:
        await live.ask("subscribe", channel="chatroom", chatroomId=room)
        exported.clear()
        await live.ask("chat:send", chatroomId=room, message="hello")
        await live.next("chat:message")
    commit = "chat:send > send > send > commit"
    wanted = {commit, f"{commit} > mongo insert room_log"}
    await until(lambda: wanted <= paths(exported, "chat:send"))


async def test_rest_call_is_traced_into_worker(url: str, exported: InMemorySpanExporter) -> None:
    alice = people(url)("alice")
    room = await alice.create_room()
    await alice.data("GET", f"/v1/chatrooms/{room}")
    reads = "GET /v1/chatrooms/{chatroomId} > room > room > mongo "

    def has_come() -> bool:
        return any(path.endswith(" room_records") for path in paths(exported, reads))

    await until(has_come)


def traces(exporter: InMemorySpanExporter) -> set[tuple[str, int]]:
    """Return the name and trace id of every span."""
    return {(span.name, span.context.trace_id) for span in exporter.get_finished_spans() if span.context is not None}


async def test_frame_continues_the_trace_of_its_client_to_the_delivery(
    url: str, exported: InMemorySpanExporter
) -> None:
    alice = people(url)("alice")
    room = await alice.create_room()
    async with await alice.live() as live:
        await live.ask("subscribe", channel="chatroom", chatroomId=room)
        await live.ask("chat:send", chatroomId=room, message="hello", traceparent=TRACEPARENT)
        wanted = {(name, TRACE_ID) for name in ("chat:send", "send", "commit", "mongo insert room_log", "deliver")}
        await until(lambda: wanted <= traces(exported))
        exported.clear()
        for other in ("nonsense", "00-tab\there", 7, None):
            answer = await live.ask("chat:send", chatroomId=room, message="hello", traceparent=other)
            assert answer["type"] == "chat:ack"
        assert TRACE_ID not in {trace for _, trace in traces(exported)}


async def test_rest_call_continues_the_trace_of_its_caller(url: str, exported: InMemorySpanExporter) -> None:
    headers = {"Authorization": f"Bearer {mint('alice')}", "traceparent": TRACEPARENT}
    async with aiohttp.ClientSession(url, headers=headers) as http, http.get("/v1/chatrooms") as response:
        assert response.status == 200
    await until(lambda: ("GET /v1/chatrooms", TRACE_ID) in traces(exported))


async def test_event_is_traced_to_its_delivery(
    amqp_url: str, mongodb_uri: str, database_name: str, exported: InMemorySpanExporter
) -> None:
    async with (
        notifier(amqp_url, mongodb_uri, database_name),
        gateway(amqp_url) as url,
        await LiveClient.as_user(url, "alice") as live,
    ):
        await live.ask("subscribe", channel="notifications")
        for number, trace in enumerate((TRACEPARENT, "00-tab\there")):
            data = {"title": "t", "message": "m"}
            type_ = "notification.created"
            event = cloud_event(f"traced-{number}", type_, data, audience="users:alice,bob", traceparent=trace)
            await publish(amqp_url, type_, event)
            await live.next("notification:new")
        wanted = {(name, TRACE_ID) for name in ("notification:new", "commit", "deliver")}
        await until(lambda: wanted <= traces(exported))


@pytest.mark.parametrize("path", ["/v1/chatrooms", "/v1/nothing", "/v1/chatrooms/room_x"])
async def test_every_answer_carries_request_id(url: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {mint('alice')}"}
    async with aiohttp.ClientSession(url, headers=headers) as http:
        async with http.get(path, headers={"X-Request-Id": "checkout-42"}) as response:
            assert response.headers["X-Request-Id"] == "checkout-42"
        async with http.get(path, headers={"X-Request-Id": "what is this?"}) as response:
            assert response.headers["X-Request-Id"].startswith("req_")
        async with http.get(path, headers={"Authorization": "Bearer nonsense"}) as response:
            assert response.headers["X-Request-Id"].startswith("req_")
