"""OpenTelemetry traces, if enabled: the path of a request through gateway, worker and database.

Tracing is off unless OTEL_EXPORTER_OTLP_ENDPOINT is set; it needs `pip install '.[tracing]'`. While it is off,
OpenTelemetry is not imported and every call here returns at once. Contexts are W3C traceparents
(https://www.w3.org/TR/trace-context/): a client frame, a REST call and an event may carry one, a command carries that
of its caller's span, and a delivery is followed by that of its command or event.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

FLUSH_TIMEOUT_MS = 2_000

is_on = False
_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None
_OFF: AbstractContextManager[None] = nullcontext()


class PendingSpan(NamedTuple):
    """The span of a command in flight; `trace` travels with the command."""

    span: "Span"
    trace: str

    def end(self, outcome: str) -> None:
        """End the span with the outcome of the command."""
        self.span.set_attribute("outcome", outcome)
        self.span.end()


def export_to(endpoint: str, service: str, node_id: str) -> None:
    """Send spans to a collector by OTLP over HTTP from now on. Raises ImportError without OpenTelemetry."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": service, "service.instance.id": node_id})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # it could delay the exit
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    turn_on(provider)


def turn_on(provider: "TracerProvider") -> None:
    """Start creating spans."""
    global is_on, _provider, _tracer
    is_on, _provider, _tracer = True, provider, provider.get_tracer("realtime")


def turn_off() -> None:
    """Stop creating spans, and export the pending ones for at most 2 s. Blocks."""
    global is_on, _provider, _tracer
    provider, is_on, _provider, _tracer = _provider, False, None, None
    if provider is not None:
        provider.force_flush(FLUSH_TIMEOUT_MS)


def span(name: str, parent: str | None = None) -> AbstractContextManager[None]:
    """Return a span around a block: within the current span, or continuing the trace of a command."""
    if _tracer is None:
        return _OFF
    return _current_span(_tracer, name, parent)


@contextmanager
def _current_span(tracer: "Tracer", name: str, parent: str | None) -> Iterator[None]:
    with tracer.start_as_current_span(name, _remote(parent), kind=_kind(parent)):
        yield


def ask(name: str) -> PendingSpan | None:
    """Return a span for a command about to be sent; None while tracing is off."""
    if _tracer is None:
        return None
    from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

    begun = _tracer.start_span(name, kind=SpanKind.CLIENT)
    context = begun.get_span_context()
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    return PendingSpan(begun, f"00-{trace_id}-{span_id}-{int(context.trace_flags):02x}")


def mark(name: str, parent: str) -> None:
    """Record a span without a duration that continues a trace."""
    if _tracer is not None:
        from opentelemetry.trace import SpanKind

        _tracer.start_span(name, _remote(parent), kind=SpanKind.CONSUMER).end()


def within(name: str) -> "Span | None":
    """Return a span inside the current one, which the caller ends; None while off or outside a span."""
    if _tracer is None:
        return None
    from opentelemetry.trace import SpanKind, get_current_span

    if not get_current_span().get_span_context().is_valid:
        return None
    return _tracer.start_span(name, kind=SpanKind.CLIENT)


def batch(name: str, commands: Iterable[tuple[str, str | None]]) -> AbstractContextManager[None]:
    """Return a span around the common work of several commands, each a name and a trace.

    Each traced command gets a span in its own trace. The work belongs to the first one; the others link to it.
    """
    if _tracer is None:
        return _OFF
    return _batch(_tracer, name, [command for command in commands if command[1] is not None])


@contextmanager
def _batch(tracer: "Tracer", name: str, traced: Sequence[tuple[str, str | None]]) -> Iterator[None]:
    from opentelemetry.trace import Link, SpanKind

    with ExitStack() as stack:
        links: list[Link] = []
        for number, (op, trace) in enumerate(traced):
            if number == 0:
                first = stack.enter_context(tracer.start_as_current_span(op, _remote(trace), kind=SpanKind.CONSUMER))
                links = [Link(first.get_span_context())]
            else:
                other = tracer.start_span(op, _remote(trace), kind=SpanKind.CONSUMER, links=links)
                stack.callback(other.end)
        if traced:
            stack.enter_context(tracer.start_as_current_span(name))
        yield


def _remote(trace: str | None) -> "Context | None":
    if trace is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace})


def _kind(parent: str | None) -> "SpanKind":
    from opentelemetry.trace import SpanKind

    return SpanKind.INTERNAL if parent is None else SpanKind.SERVER
