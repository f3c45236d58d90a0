"""Every PromQL query of the project (rules, dashboard, autoscaler adapter) and the metrics that it selects."""

import json
from collections.abc import Iterator, Mapping
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
    """A query and its place."""

    place: str
    text: str

    @property
    def selections(self) -> list["Selection"]:
        """Return the series that it selects."""
        return selections(self.text)


def rules() -> list[dict[str, Any]]:
    """Return all alerting and recording rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> set[str]:
    """Return the series that rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def rule_queries() -> list[RecordedQuery]:
    """Return the queries of the rules."""
    return [RecordedQuery(f"rule {rule.get('alert') or rule['record']}", rule["expr"]) for rule in rules()]


def dashboard() -> Any:
    """Return the dashboard as Grafana reads it."""
    return json.loads(DASHBOARD.read_text())


def dashboard_queries() -> list[RecordedQuery]:
    """Return the queries of the dashboard with Grafana's variable filled in."""
    panels, annotations = dashboard()["panels"], dashboard()["annotations"]["list"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]
    asked += [(annotation["name"], annotation["expr"]) for annotation in annotations]
    return [RecordedQuery(f"panel {title}", expr.replace("$__rate_interval", "1m")) for title, expr in asked]


def adapter_queries() -> list[RecordedQuery]:
    """Return the queries of prometheus-adapter with its variables filled in."""
    return [
        RecordedQuery(f"adapter {rule['name']['as']}", adapter_query(rule, 'namespace="x"', "namespace"))
        for rule in manifests.adapter_rules()
    ]


def adapter_query(rule: Mapping[str, Any], matchers: str, grouping: str) -> str:
    """Return the query that prometheus-adapter makes of a rule."""
    text = str(rule["metricsQuery"]).replace("<<.Series>>", rule["seriesQuery"].split("{")[0])
    return text.replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", grouping)


class Selection(NamedTuple):
    """A selected metric and the labels that distinguish its series."""

    metric: str
    labels: frozenset[str]


def selections(text: str) -> list[Selection]:
    """Return the metrics and labels that a query selects.

    A label of a grouping or join counts for every metric in that part of the query.
    """
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
            # The innermost grouping determines the labels, so outer ones do not count.
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
