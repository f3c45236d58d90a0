"""Generator of docs/metrics.md from the metrics that the services declare: `make metrics`."""

import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

import chat_service.metrics
import gateway.metrics
import market_feed.metrics
import notifier.metrics
import shared.telemetry.metrics
from shared.bus.delivery import DeliveryKind
from shared.bus.topology import queues

MODULES: dict[str, ModuleType] = {
    "Every service": shared.telemetry.metrics,
    "gateway": gateway.metrics,
    "chat_service": chat_service.metrics,
    "market_feed": market_feed.metrics,
    "notifier": notifier.metrics,
}


class Values(NamedTuple):
    """The allowed values of a label, as a pattern that must match fully, and an explanation for the reader."""

    pattern: str
    meaning: str


_WORD = r"[a-z_]+"
_KINDS = [*(kind.name.lower() for kind in DeliveryKind), "changes", "full", "leaving", "renewal"]
_QUEUES = [*(re.escape(spec.name) for spec in queues()), r"rates\.\*"]

LABELS: dict[str, Values] = {
    "budget": Values("gateway|users|gateways", "`gateway`; in a service `users` or `gateways`"),
    "by": Values("server|client", "the side that closed: `server`, or `client` (a lost connection included)"),
    "check": Values(_WORD, "a check of `/readyz`, for example `broker`, `database`, `partitions`"),
    "code": Values(r"[A-Z_]+|\d{4}|other", "an error code of the protocol, or a close code (`other` for unknown ones)"),
    "collection": Values(_WORD, "a database collection; `none` for commands without one"),
    "command": Values(r"[A-Za-z]+", "a database command, for example `insert`"),
    "consumer": Values("search|mentions", "a consumer of the logs: the search index, or the notification of mentions"),
    "exchange": Values(
        r"realtime\.[a-z]+|default", "the target exchange; `default` sends directly to a queue (replies)"
    ),
    "kind": Values("|".join(_KINDS), "a kind of deliveries, or of presence report"),
    "level": Values("debug|info|warning|error|critical", "the level of a log line"),
    "op": Values(r"[a-z_.]+", "the `op` of a command, for example `send` or `subscribe`"),
    "outcome": Values(r"[a-z_]+|[A-Z_]+", "`ok`, `expired`, the result of an event, or an error code of the protocol"),
    "partition": Values(r"\d|1[0-5]", "0 … 15"),
    "queue": Values("|".join(_QUEUES), "a durable queue; `rates.*`: a queue of one process"),
    "reason": Values(_WORD, "why it was refused or retried"),
    "route": Values(
        r"[A-Z]+ /[A-Za-z0-9_{}./-]*|none", "method and path template of a REST call; `none` for unknown calls"
    ),
    "scope": Values("room|joined", "of a search: one room, or all joined ones"),
    "source": Values(r"[a-z0-9:-]+", "a tick source: `sim`, `amqp`, `replay`, or `websocket:` and a feed's name"),
    "status": Values(r"\d{3}|online|offline", "an HTTP status; for presence `online`, `offline`"),
    "type": Values(r"[a-z]+(:[a-z]+)?", "a frame type of the protocol; `other` for refused frames"),
    "way": Values(
        "fanout|answer|activity",
        "`fanout`: sent to all subscribers of a channel; `answer`: sent to one socket; `activity`: sent to"
        " sockets subscribed to `activity`",
    ),
}

_HEAD = """# Metrics

Each process serves its metrics on its admin port under `/metrics`, in Prometheus' text format, together with the client
library's `process_…` and `python_…` metrics. `make metrics` generates this page from the code. No label holds the id of
a user, a room, a message or a process.

"""


class Row(NamedTuple):
    """One exported metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...]


def declared(module: ModuleType) -> list[Row]:
    """Return the metrics of a module in order of declaration."""
    return [_row(metric) for metric in vars(module).values() if isinstance(metric, MetricWrapperBase)]


def _row(metric: MetricWrapperBase) -> Row:
    family = next(iter(metric.describe()))
    name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
    buckets = tuple(metric._upper_bounds[:-1]) if isinstance(metric, Histogram) else ()
    return Row(name, family.type, tuple(metric._labelnames), family.documentation, buckets)


def page() -> str:
    """Return the content of the page."""
    return _HEAD + "\n".join([*_tables(), *_labels()])


def _tables() -> Iterator[str]:
    for title, module in MODULES.items():
        yield f"## {title}\n"
        yield "| Metric | Type | Labels | Description |"
        yield "|---|---|---|---|"
        for row in declared(module):
            labels = ", ".join(f"`{label}`" for label in row.labels)
            yield f"| `{row.name}` | {row.kind} | {labels} | {row.help}{_bounds(row)} |"
        yield ""


def _bounds(row: Row) -> str:
    if not row.buckets:
        return ""
    return f"; {len(row.buckets)} buckets from {row.buckets[0]:g} to {row.buckets[-1]:g}"


def _labels() -> Iterator[str]:
    yield "## Labels\n"
    yield "| Label | Values |"
    yield "|---|---|"
    for label, values in LABELS.items():
        yield f"| `{label}` | {values.meaning} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
