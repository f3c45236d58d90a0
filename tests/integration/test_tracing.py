"""One message through gateway, broker, worker and database, followed by OpenTelemetry spans and request ids."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry import tracing
from tests.support.people import people
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import mint
from tests.support.waiting import until


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
