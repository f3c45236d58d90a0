"""What the probes saw. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]


class ProcessReport(NamedTuple):
    """One process. `problem` says why it did not answer; then the rest is empty.

    `reasons` are those of the failed checks of `/readyz`, by check. `settings` are the texts of its settings by
    variable, without secrets; None for a release that does not show them.
    """

    url: str
    problem: str = ""
    service: str = ""
    version: str = ""
    reasons: Mapping[str, str] = {}
    settings: Mapping[str, str] | None = None
    metrics: Mapping[str, float] = {}


class QueueReport(NamedTuple):
    """One durable queue. `messages` and `consumers` are None if it is missing; `problem` says why it did not answer."""

    name: str
    messages: int | None = None
    consumers: int | None = None
    problem: str = ""


class BrokerReport(NamedTuple):
    """The broker. `unreachable` holds the reason by host; `echo_problem` says why a message did not come back."""

    version: str = ""
    hosts: int = 1
    unreachable: Mapping[str, str] = {}
    echo_problem: str = ""
    queues: tuple[QueueReport, ...] = ()


class MemberReport(NamedTuple):
    """One member of the replica set, as the server that answered sees it."""

    name: str
    state: str
    is_healthy: bool


class DatabaseReport(NamedTuple):
    """The database. `skew_ms` is its clock less this host's; `members` is None where that may not be asked.

    `missing_rights` are the actions on the product's database that the user lacks; `user` is empty without a login.
    """

    problem: str = ""
    version: str = ""
    replica_set: str = ""
    is_writable: bool = False
    skew_ms: int = 0
    members: tuple[MemberReport, ...] | None = None
    is_journaled: bool = True
    user: str = ""
    missing_rights: tuple[str, ...] = ()
