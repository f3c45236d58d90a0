"""The programs of a run, their environments and their ports."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from deploy.local.broker import BrokerNode, is_problem
from deploy.local.command import CommandLine
from deploy.local.database import DatabaseServer, find_mongod
from deploy.local.ports import LOOPBACK, KeptPorts, is_free
from deploy.local.program import Program, Rank, ready_if, ready_over_http
from deploy.local.settings import PROJECT, LocalSettings

_SERVER_STOP_TIMEOUT_S = 20.0
_DRAIN_TIMEOUT_S = 25.0
_STOP_MARGIN_S = 5.0
# With one malloc arena per thread of the database driver, each arena keeps what its largest reads needed: 300 MB in
# chat_service after 300 pages of 6 MB, 110 MB with two arenas. The container image sets the same.
_ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True, slots=True)
class Plan:
    """The start stages of programs, the settings shared by all services, and each service's admin port."""

    stages: list[list[Program]]
    shared_environment: dict[str, str]
    admin_ports: dict[str, int]

    @property
    def names(self) -> list[str]:
        """Return the programs' names in start order."""
        return [program.name for stage in self.stages for program in stage]


def make_plan(settings: LocalSettings, environment: Mapping[str, str], jwt_secret: str | None) -> Plan:
    """Decide which programs run and prepare their directories. Values in `environment` take precedence."""
    ports = KeptPorts(settings.directory / "ports.json")
    servers: list[list[Program]] = []
    started: list[Program] = []
    if settings.amqp_url is None:
        node = BrokerNode.on_kept_ports(settings.directory / "rabbitmq", ports)
        node.prepare()
        servers.append([_epmd(node)])
        started.append(_broker(node))
        settings = replace(settings, amqp_url=node.url)
    if settings.mongodb_uri is None:
        directory = settings.directory / "database"
        server = DatabaseServer(directory, ports.take("mongodb"), find_mongod(environment.get("PATH", "")))
        server.prepare()
        started.append(_database(server))
        settings = replace(settings, mongodb_uri=server.uri)
    servers.append(started)
    shared = _shared_environment(settings, environment, jwt_secret)
    admin_ports = _admin_ports(settings, ports)
    services = [_service(name, admin_ports[name], {**environment, **shared}) for name in admin_ports]
    return Plan([*filter(None, servers), services], shared, admin_ports)


def _shared_environment(
    settings: LocalSettings, environment: Mapping[str, str], jwt_secret: str | None
) -> dict[str, str]:
    shared = {
        "AMQP_URL": settings.amqp_url or "",
        "MONGODB_URI": settings.mongodb_uri or "",
        "MONGODB_DATABASE": settings.mongodb_database,
        "GATEWAY_HOST": settings.gateway_host,
        "GATEWAY_PORT": str(settings.gateway_port),
        "ADMIN_HOST": environment.get("ADMIN_HOST") or LOOPBACK,
        "DEV_MODE": environment.get("DEV_MODE") or "1",
        "LOG_FORMAT": environment.get("LOG_FORMAT") or "console",
        "PYTHONUNBUFFERED": "1",
    }
    return shared | ({"JWT_SECRET": jwt_secret} if jwt_secret else {})


def _admin_ports(settings: LocalSettings, ports: KeptPorts) -> dict[str, int]:
    """Return an admin port for each service: the well-known one for the first of a kind if free, otherwise any."""
    kinds = (
        ("gateway", settings.gateways),
        ("chat_service", settings.chat_services),
        ("market_feed", settings.market_feeds),
        ("notifier", settings.notifiers),
    )
    given: dict[str, int] = {}
    for offset, (kind, count) in enumerate(kinds):
        well_known = settings.first_admin_port + offset
        for index, name in enumerate(_names(kind, count)):
            wanted = index == 0 and settings.first_admin_port and is_free(well_known)
            given[name] = well_known if wanted else ports.take(f"{name} admin")
    return given


def _names(kind: str, count: int) -> Iterator[str]:
    """Return program names; a single instance has no number."""
    for number in range(1, count + 1):
        yield kind if count == 1 else f"{kind}-{number}"


def _service(name: str, admin_port: int, environment: Mapping[str, str]) -> Program:
    module = name.partition("-")[0]
    own = {**_ALLOCATOR, **environment, "ADMIN_PORT": str(admin_port)}
    command = CommandLine((sys.executable, "-m", module), own, PROJECT)
    rank = Rank.GATEWAY if module == "gateway" else Rank.SERVICE
    return Program(name, rank, command, ready_over_http(admin_port), _drain_timeout_s(environment) + _STOP_MARGIN_S)


def _drain_timeout_s(environment: Mapping[str, str]) -> float:
    try:
        return float(environment.get("DRAIN_TIMEOUT_S") or _DRAIN_TIMEOUT_S)
    except ValueError:  # the services report it
        return _DRAIN_TIMEOUT_S


def _epmd(node: BrokerNode) -> Program:
    return Program("epmd", Rank.EPMD, node.epmd_command(), ready_if(node.epmd_is_ready), _SERVER_STOP_TIMEOUT_S)


def _broker(node: BrokerNode) -> Program:
    command = node.server_command()
    return Program("broker", Rank.BROKER, command, ready_if(node.is_ready), _SERVER_STOP_TIMEOUT_S, is_problem)


def _database(server: DatabaseServer) -> Program:
    return Program("database", Rank.DATABASE, server.command(), ready_if(server.is_ready), _SERVER_STOP_TIMEOUT_S)
