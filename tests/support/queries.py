"""Every PromQL query of the project: of the rules, the dashboard and the autoscalers' adapter; and what it asks for."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser
import yaml
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

from deploy.local.settings import PROJECT
from tests.support import manifests

RULES = PROJECT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "dashboards" / "realtime.json"


class RecordedQuery(NamedTuple):
    """A query and where it stands."""

    place: str
    text: str

    @property
    def selections(self) -> list["Selection"]:
        """What it selects."""
        return selections(self.text)


def rules() -> list[dict[str, Any]]:
    """All rules, alerts and records."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> set[str]:
    """The series that rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def rule_queries() -> list[RecordedQuery]:
    """The queries of the rules."""
    return [RecordedQuery(f"rule {rule.get('alert') or rule['record']}", rule["expr"]) for rule in rules()]


def dashboard() -> Any:
    """The dashboard as Grafana reads it."""
    return json.loads(DASHBOARD.read_text())


def dashboard_queries() -> list[RecordedQuery]:
    """The queries of the dashboard, Grafana's own variable filled in."""
    panels, annotations = dashboard()["panels"], dashboard()["annotations"]["list"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]
    asked += [(annotation["name"], annotation["expr"]) for annotation in annotations]
    return [RecordedQuery(f"panel {title}", expr.replace("$__rate_interval", "1m")) for title, expr in asked]


def adapter_queries() -> list[RecordedQuery]:
    """The queries by which prometheus-adapter makes the autoscalers' metrics, its own variables filled in."""
    found = []
    for rule in manifests.adapter_rules():
        series = rule["seriesQuery"].split("{")[0]
        text = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", 'namespace="x"')
        found.append(RecordedQuery(f"adapter {rule['name']['as']}", text.replace("<<.GroupBy>>", "namespace")))
    return found


class Selection(NamedTuple):
    """A metric that a query asks for, and the labels by which it tells its series apart."""

    metric: str
    labels: frozenset[str]


def selections(text: str) -> list[Selection]:
    """What a query selects. A label that it groups or joins by counts for every metric in that part of it."""
    return [*_walk(promql_parser.parse(text), frozenset())]


def _walk(node: object, labels: frozenset[str]) -> Iterator[Selection]:
    match node:
        case VectorSelector():
            matchers = {matcher.name for matcher in node.matchers.matchers}
            assert node.name is not None
            yield Selection(node.name, labels | matchers)
        case MatrixSelector():
            yield from _walk(node.vector_selector, labels)
        case AggregateExpr():
            # What is grouped by further in has only the labels of that grouping; so only the innermost one counts.
            grouped = frozenset(node.modifier.labels) if node.modifier is not None else frozenset()
            yield from _walk(node.expr, grouped)
        case BinaryExpr():
            matching = node.modifier.matching if node.modifier is not None else None
            joined = labels | (frozenset(matching.labels) if matching is not None else frozenset())
            yield from _walk(node.lhs, joined)
            yield from _walk(node.rhs, joined)
        case Call():
            for argument in node.args:
                yield from _walk(argument, labels)
        case ParenExpr() | UnaryExpr() | SubqueryExpr():
            yield from _walk(node.expr, labels)
