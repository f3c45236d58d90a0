"""Findings: what is wrong, how bad it is, and the remedy. Pure."""

from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """`ERROR`: clients are affected, or the next fault affects them. `WARNING`: look at it. `OK`: checked and right."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


class Finding(NamedTuple):
    """One finding. `remedy` names a command, a setting or a section of docs/operations.md."""

    severity: Severity
    subject: str
    text: str
    remedy: str = ""


def error(subject: str, text: str, remedy: str) -> Finding:
    """Return an error."""
    return Finding(Severity.ERROR, subject, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return a warning."""
    return Finding(Severity.WARNING, subject, text, remedy)


def ok(subject: str, text: str) -> Finding:
    """Return a check that found nothing wrong."""
    return Finding(Severity.OK, subject, text)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Return the findings in the order of their severity."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))
