"""All services run from the image, read-only and without capabilities, with the broker accounts of a deployment."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.container.engine import Engine
from deploy.container.image import TAG, build_arguments
from deploy.local.settings import PROJECT
from deploy.tools import broker_definitions
from shared.ids import Prefix, new_id
from shared.version import VERSION
from tests.containers import servers
from tests.containers.container import HARDENED, Container
from tests.support.live_client import LiveClient, RestClient
from tests.support.settings_names import SETTINGS
from tests.support.tokens import SECRET

pytestmark = pytest.mark.long

NETWORK = "image-test"
GRACE_S = 35  # as in compose.yaml
BROKER_TIMEOUT_S = 120.0
ACCOUNTS = {"gateway": "gateway", "chat_service": "worker", "market_feed": "worker", "notifier": "worker"}


@pytest.fixture(scope="module")
def passwords(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run broker and database; yield the passwords of the broker's accounts."""
    permissions = json.loads((PROJECT / "deploy" / "rabbitmq" / "permissions.json").read_text())
    made = {name: new_id(Prefix.SESSION) for name in broker_definitions.user_names(permissions)}
    files = tmp_path_factory.mktemp("broker")
    files.chmod(0o755)
    (files / "definitions.json").write_text(json.dumps(broker_definitions.definitions(permissions, made)))
    (files / "rabbitmq.conf").write_text("load_definitions = /broker/definitions.json\n")
    engine.run("network", "create", NETWORK)
    broker = ("--volume", f"{files}:/broker:ro", "--env", "RABBITMQ_CONFIG_FILE=/broker/rabbitmq.conf")
    _run(engine, "rabbitmq", *broker, "--hostname", "rabbitmq", servers.RABBITMQ)
    _run(engine, "mongodb", servers.DATABASE)
    _wait_for_broker(engine)
    yield made
    engine.run("rm", "--force", "rabbitmq", "mongodb")
    engine.run("network", "rm", NETWORK)


@pytest.fixture(scope="module")
def services(engine: Engine, passwords: dict[str, str]) -> Iterator[dict[str, Container]]:
    """Run all services and yield them once they are ready. A collector is named, which nobody runs."""
    started = {service: _start(engine, service, passwords[ACCOUNTS[service]]) for service in SETTINGS}
    for container in started.values():
        container.wait_ready()
    yield started
    engine.run("rm", "--force", *started)


def _run(engine: Engine, name: str, *arguments: str) -> Container:
    engine.run("run", "--detach", "--network", NETWORK, "--name", name, *arguments)
    return Container(engine, name, NETWORK)


def _start(engine: Engine, service: str, password: str) -> Container:
    variables = {
        "AMQP_URL": f"amqp://{ACCOUNTS[service]}:{password}@rabbitmq/",
        "MONGODB_URI": "mongodb://mongodb/?directConnection=true",
        "JWT_SECRET": SECRET,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.invalid:4318",
    }
    given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return _run(engine, service, *HARDENED, *given, TAG, "python", "-m", service)


def _wait_for_broker(engine: Engine) -> None:
    deadline_s = time.monotonic() + BROKER_TIMEOUT_S
    check = ("exec", "rabbitmq", "rabbitmq-diagnostics", "--quiet", "check_port_connectivity")
    while engine.attempt(*check).returncode != 0:
        assert time.monotonic() < deadline_s, Container(engine, "rabbitmq", NETWORK).log()
        time.sleep(0.5)  # poll interval of a condition with a deadline


def test_image_names_version_and_revision(engine: Engine) -> None:
    (described,) = json.loads(engine.run("image", "inspect", TAG))
    labels: dict[str, Any] = described["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == build_arguments()["REVISION"]
    assert labels["org.opencontainers.image.created"]


@pytest.mark.parametrize("service", SETTINGS)
def test_service_says_version_and_revision(services: dict[str, Container], service: str) -> None:
    health = services[service].answer("/healthz")
    assert (health["version"], health["revision"]) == (VERSION, build_arguments()["REVISION"])


async def test_message_passes_through_all_containers(services: dict[str, Container]) -> None:
    url = f"http://{services['gateway'].address}:8080"
    room = await RestClient(url, "ann").create_room()
    async with await LiveClient.as_user(url, "ann") as ann, await LiveClient.as_user(url, "bob") as bob:
        await bob.ask("subscribe", channel="chatroom", chatroomId=room)
        assert (await ann.ask("chat:send", chatroomId=room, message="hello"))["type"] == "chat:ack"
        assert (await bob.data("chat:message"))["message"] == "hello"


async def test_event_of_publisher_reaches_its_user(
    engine: Engine, services: dict[str, Container], passwords: dict[str, str]
) -> None:
    url = f"http://{services['gateway'].address}:8080"
    async with await LiveClient.as_user(url, "cleo") as cleo:
        assert (await cleo.ask("subscribe", channel="notifications"))["type"] == "subscribed"
        data = json.dumps({"userId": "cleo", "title": "New", "message": "from a container"})
        environment = ("--env", f"AMQP_URL=amqp://publisher:{passwords['publisher']}@rabbitmq/")
        command = ("python", "-m", "gateway.cli", "publish", "notification.created", data)
        engine.run("run", "--rm", "--network", NETWORK, *HARDENED, *environment, TAG, *command)
        assert (await cleo.data("notification:new"))["message"] == "from a container"


def test_services_stop_in_order_on_sigterm(services: dict[str, Container]) -> None:
    """The last test here: nothing runs afterwards."""
    for service, container in services.items():
        took_s = container.stop(GRACE_S)
        assert container.exit_code == 0, container.log()
        assert took_s < GRACE_S, service
        assert not re.search("Traceback", container.log())
