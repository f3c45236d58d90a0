"""The broker and the database provisioned for development and tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from pymongo import MongoClient

from deploy.local.leftovers import MARK_VARIABLE, kill_marked, marked_pids, start_guard
from deploy.local.settings import PROJECT
from tests.support.infrastructure import Broker, Database
from tests.support.waiting import block_until


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("a broker")) as broker:
        yield broker


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(tmp_path_factory.mktemp("a database")) as database:
        yield database


async def test_durable_message_survives_broker_kill(broker: Broker) -> None:
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"here", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")
        broker.kill()
    broker.start()
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, passive=True)
        assert (await queue.get(no_ack=True, timeout=10)).body == b"here"


def test_broker_listens_only_on_loopback(broker: Broker) -> None:
    children = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    addresses = [line.split()[3] for line in children.splitlines() if f"pid={broker.pid}," in line]
    assert len(addresses) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_acknowledged_write_survives_database_kill(database: Database) -> None:
    with MongoClient[dict[str, Any]](database.uri) as client:
        client.kept.things.insert_many([{"n": n} for n in range(100)])
    database.kill()
    assert not database.is_ready()
    database.start()
    with MongoClient[dict[str, Any]](database.uri) as client:
        assert client.kept.things.count_documents({}) == 100


def test_failed_start_quotes_server_output(tmp_path: Path) -> None:
    (tmp_path / "secantusdb").write_text("a file in the place of the data")
    (tmp_path / "mongod").write_text("a file in the place of the data")
    with pytest.raises((RuntimeError, FileExistsError)):
        Database(tmp_path).start()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_killed_owner_leaves_no_processes(tmp_path: Path, end: signal.Signals) -> None:
    """Run an owner in its own process that starts a guard and a marked child, as tests and supervisor do."""
    mark = f"test {os.getpid()} {end.name}"
    owner_code = (
        "import os, subprocess, sys, time\n"
        "from deploy.local.leftovers import MARK_VARIABLE, start_guard\n"
        f"guard = start_guard({mark!r})\n"
        f"os.environ[MARK_VARIABLE] = {mark!r}\n"
        "child = subprocess.Popen(['sh', '-c', 'sleep 600 & sleep 600'], start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", owner_code], cwd=PROJECT)
    block_until(lambda: len(marked_pids(mark)) == 3)
    owner.send_signal(end)
    owner.wait(10)
    block_until(lambda: marked_pids(mark) == [])


def test_guard_spares_other_processes(tmp_path: Path) -> None:
    other_mark = f"other {os.getpid()}"
    other = subprocess.Popen(["sleep", "600"], env={MARK_VARIABLE: other_mark})
    guard = start_guard(f"mine {os.getpid()}")
    guard.communicate(timeout=10)
    assert other.poll() is None
    assert kill_marked(other_mark) == [other.pid]
    other.wait(10)
