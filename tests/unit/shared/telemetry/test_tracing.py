"""Spans across processes: a command's trace continues in its worker, also for commands handled together."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry import tracing


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.turn_on(provider)
    yield exporter
    tracing.turn_off()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def asked(name: str) -> tracing.PendingSpan:
    span = tracing.ask(name)
    assert span is not None
    return span


def test_tracing_does_nothing_while_off() -> None:
    assert not tracing.is_on
    assert tracing.ask("send") is None
    assert tracing.within("insert") is None
    assert tracing.span("a") is tracing.span("b") is tracing.batch("c", [("send", None)])
    with tracing.span("a"), tracing.batch("c", []):
        pass


def test_command_carries_trace_to_worker(exported: InMemorySpanExporter) -> None:
    with tracing.span("POST /v1/chatrooms"):
        command = asked("create")
    with tracing.span("worker", command.trace):
        inner = tracing.within("insert")
        assert inner is not None
        inner.end()
    command.end("ok")
    spans = by_name(exported)
    assert len({trace_id(span) for span in spans.values()}) == 1
    assert parent_of(spans["create"]) == span_id(spans["POST /v1/chatrooms"])
    assert parent_of(spans["worker"]) == span_id(spans["create"])
    assert parent_of(spans["insert"]) == span_id(spans["worker"])
    assert dict(spans["create"].attributes or {}) == {"outcome": "ok"}


def test_each_command_of_batch_continues_its_trace(exported: InMemorySpanExporter) -> None:
    first, second = asked("asked 1"), asked("asked 2")
    with tracing.batch("commit", [("send 1", first.trace), ("untraced", None), ("send 2", second.trace)]):
        assert tracing.within("insert") is not None
    for command in (first, second):
        command.end("ok")
    spans = by_name(exported)
    assert set(spans) == {"asked 1", "asked 2", "send 1", "send 2", "commit"}
    for number in ("1", "2"):
        assert trace_id(spans[f"send {number}"]) == trace_id(spans[f"asked {number}"])
        assert parent_of(spans[f"send {number}"]) == span_id(spans[f"asked {number}"])
    assert parent_of(spans["commit"]) == span_id(spans["send 1"])
    assert [link.context.span_id for link in spans["send 2"].links] == [span_id(spans["send 1"])]


def test_work_outside_request_makes_no_span(exported: InMemorySpanExporter) -> None:
    assert tracing.within("insert") is None
    with tracing.batch("commit", [("send", None)]):
        assert tracing.within("insert") is None
    assert exported.get_finished_spans() == ()


def test_invalid_trace_starts_new_one(exported: InMemorySpanExporter) -> None:
    with tracing.span("worker", "not a traceparent"):
        pass
    assert parent_of(by_name(exported)["worker"]) is None
