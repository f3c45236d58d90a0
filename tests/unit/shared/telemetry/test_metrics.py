"""The metrics as declared: documented, and with labels that cannot grow with users or rooms."""

import re

import pytest

from deploy.local.settings import PROJECT
from deploy.tools.metrics_page import LABELS, MODULES, Row, declared, page

ROWS = {row.name: row for module in MODULES.values() for row in declared(module)}

IDS = ("room_01JAR3NDEKTSV4RRFFQ69G5FAV", "user_456", "msg_01JAR3NDEKTSV4RRFFQ69G5FAV", "node_01JAR3NDEKTSV4RRFFQ69G5F")
SERVICES = {"gateway_", "chat_", "market_", "notifier_"}


def test_metrics_page_is_current() -> None:
    assert (PROJECT / "docs" / "metrics.md").read_text(encoding="utf-8") == page(), "run `make metrics`"


def test_names_are_declared_once() -> None:
    assert len(ROWS) == sum(len(declared(module)) for module in MODULES.values())
    assert len(ROWS) > 60


def test_every_label_is_explained() -> None:
    assert {label for row in ROWS.values() for label in row.labels} == set(LABELS)


@pytest.mark.parametrize("label", sorted(LABELS))
def test_labels_are_not_ids(label: str) -> None:
    assert not [id_ for id_ in IDS if re.fullmatch(LABELS[label].pattern, id_)]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_metric_has_help_and_unit(row: Row) -> None:
    assert len(row.help) > 10
    assert not row.help.endswith(".")
    if row.kind == "histogram":
        assert row.name.endswith(("_seconds", "_lines", "_commands"))
        assert list(row.buckets) == sorted(row.buckets)
    if "time" in row.help.lower().split()[:3]:
        assert row.name.endswith("_seconds") or row.name.endswith("_seconds_total")


def test_service_metrics_have_service_prefix() -> None:
    for title, module in MODULES.items():
        prefixes = {row.name.split("_")[0] + "_" for row in declared(module)}
        own = {"chat_service": "chat_", "market_feed": "market_"}.get(title, f"{title}_")
        assert prefixes == {own} if own in SERVICES else not prefixes & SERVICES
