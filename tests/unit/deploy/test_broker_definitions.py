"""The broker's accounts, their rights, and the tool that makes definitions of them."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.local.settings import PROJECT
from deploy.tools import broker_definitions
from shared.bus.topology import EXCHANGES, OLD_QUEUES, queues

PERMISSIONS: dict[str, Any] = json.loads((PROJECT / "deploy" / "rabbitmq" / "permissions.json").read_text())
ACCOUNTS = {permission["user"]: permission for permission in PERMISSIONS["permissions"]}
PRIVATE = ["reply.node_1.1", "echo.node_1.1", "beats.node_1.1"]
DURABLE = [spec.name for spec in queues()]


def may(account: str, right: str, name: str) -> bool:
    """Return what the broker decides: an unanchored search of the pattern."""
    return re.search(ACCOUNTS[account][right], name) is not None


def test_exchanges_are_those_of_the_topology() -> None:
    described = {(exchange["name"], exchange["type"]) for exchange in PERMISSIONS["exchanges"]}
    assert described == set(EXCHANGES)
    assert all(exchange["durable"] and not exchange["auto_delete"] for exchange in PERMISSIONS["exchanges"])


@pytest.mark.parametrize("name", [*DURABLE, *OLD_QUEUES, *PRIVATE, "chat.node_1.1", "rates.node_1.1", "life.node_1.1"])
@pytest.mark.parametrize("right", ["configure", "write", "read"])
def test_worker_has_all_rights_on_its_queues(right: str, name: str) -> None:
    assert may("worker", right, name)


@pytest.mark.parametrize("name", [*DURABLE, "chat.node_1.1", "rates.node_1.1", "life.node_1.1"])
@pytest.mark.parametrize("right", ["configure", "write", "read"])
def test_gateway_has_no_right_on_queues_of_workers(right: str, name: str) -> None:
    assert not may("gateway", right, name)


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("exchange", [*(name for name, _ in EXCHANGES), "amq.default", "amq.topic"])
def test_nobody_may_declare_or_delete_an_exchange(account: str, exchange: str) -> None:
    assert not may(account, "configure", exchange)


@pytest.mark.parametrize("name", [*DURABLE, *PRIVATE, "amq.default", "realtime.commands", "realtime.events.more"])
def test_publisher_has_no_other_right_than_to_write_events(name: str) -> None:
    assert may("publisher", "write", "realtime.events")
    assert not any(may("publisher", right, "realtime.events") for right in ("configure", "read"))
    assert not any(may("publisher", right, name) for right in ("configure", "write", "read"))


def test_gateway_neither_reads_nor_writes_events() -> None:
    assert not any(may("gateway", right, "realtime.events") for right in ("configure", "write", "read"))


def test_definitions_hold_salted_hashes_of_all_users() -> None:
    passwords = {name: f"password of {name}" for name in ACCOUNTS}
    made = broker_definitions.definitions(PERMISSIONS, passwords)
    assert {user["name"] for user in made["users"]} == set(ACCOUNTS)
    for user in made["users"]:
        packed = base64.b64decode(user["password_hash"])
        assert packed[4:] == hashlib.sha256(packed[:4] + passwords[user["name"]].encode()).digest()
        assert user["tags"] == []
    assert not any(password in json.dumps(made) for password in passwords.values())


def test_empty_password_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway").write_text("\n")
    with pytest.raises(SystemExit, match="gateway"):
        broker_definitions.read_passwords(tmp_path, ["gateway"])
