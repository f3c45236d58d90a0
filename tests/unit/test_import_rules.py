"""Import rules between packages, checked on the syntax trees of the tree."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SERVICES = ("gateway", "chat_service", "market_feed", "notifier")
PACKAGES = ("shared", *SERVICES)

# A module whose docstring says "Pure" is pure. These modules must keep saying it.
PURE = {
    "chat_service.partitions.body_dedup",
    "chat_service.partitions.command_age",
    "chat_service.partitions.costs",
    "chat_service.rooms.decision",
    "chat_service.rooms.decisions",
    "chat_service.rooms.entry_deliveries",
    "chat_service.rooms.heads",
    "chat_service.rooms.log",
    "chat_service.rooms.message_decisions",
    "chat_service.rooms.message",
    "chat_service.partitions.ownership",
    "chat_service.partitions.rates",
    "chat_service.partitions.rendezvous",
    "chat_service.partitions.reservations",
    "chat_service.partitions.settlement",
    "chat_service.rooms.requirements",
    "chat_service.rooms.room_decisions",
    "chat_service.rooms.room",
    "chat_service.rooms.typing_marks",
    "chat_service.storage.write_behind",
    "gateway.commands.outbox",
    "shared.bus.publish_frame",
    "gateway.admission.addresses",
    "gateway.admission.admission",
    "gateway.admission.open_connections",
    "gateway.admission.refused",
    "gateway.admission.pace",
    "gateway.auth.identity",
    "gateway.auth.jwks_schedule",
    "gateway.fanout.batch",
    "gateway.fanout.channel",
    "gateway.fanout.direct_messages",
    "gateway.fanout.flush_schedule",
    "gateway.fanout.frame_peek",
    "gateway.fanout.hub",
    "gateway.fanout.lane",
    "gateway.fanout.prices",
    "gateway.fanout.registry",
    "gateway.fanout.resequencer",
    "gateway.fanout.stream",
    "gateway.fanout.subscriber",
    "gateway.fanout.typing_expiry",
    "gateway.fanout.wire",
    "gateway.http.upgrade_head",
    "gateway.live.connection_counts",
    "gateway.live.due_wheel",
    "gateway.live.frame_reader",
    "gateway.live.handshake",
    "gateway.live.send_queue",
    "gateway.live.session",
    "gateway.origins",
    "market_feed.candles",
    "market_feed.quotes",
    "market_feed.staleness",
    "notifier.events.audience",
    "shared.backoff",
    "shared.bus.batching",
    "shared.bus.delivery",
    "shared.bus.events",
    "shared.bus.topology",
    "shared.commands.chat",
    "shared.commands.chat_queries",
    "shared.commands.chat_views",
    "shared.commands.command",
    "shared.commands.market",
    "shared.commands.notifier",
    "shared.protocol.client_frames",
    "shared.rate_window",
    "shared.protocol.event_frames",
    "shared.protocol.server_frames",
}
# Vocabulary and small functions that pure modules may import; held to the same rule.
GROUND = {
    "shared.errors",
    "shared.encoding",
    "shared.times",
    "shared.protocol.validation",
    "shared.ids",
    "shared.process.settings",
}
PURE_LIBRARIES = {"emoji", "msgspec", "orjson", "zstandard"}
WAITING = {"asyncio", "socket", "subprocess", "threading", "selectors", "http", "logging", "multiprocessing"}

AIOHTTP = re.compile(
    r"gateway\.(http\.(app|cors|pages|refusing|server)|live\.endpoint|auth\.jwks|documents\.routes|__main__|rest(\..*)?)"
    r"|market_feed\.sources\.websocket|shared\.process\.admin"
)
DATABASE = re.compile(
    r"shared\.mongo|chat_service\.storage\.(migration|search_words|change_writes)|(.*\.)?(store|\w+_store)"
)
BROKER = re.compile(
    r"shared\.bus\.(amqp|broker_channels|broker_connection|broker_objects|confirm_channel|delivery_tap|liveness_queue)"
)


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module, module: str, known: set[str]) -> Iterator[str]:
    """Yield every module imported anywhere in the file, at the top or inside a function."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                assert level == 0, f"{module}: a relative import"
                assert source is not None
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    yield inner if inner in known else source


CLIENT = PROJECT / "gateway" / "client"
PATHS = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((PROJECT / package).rglob("*.py"))
    if not path.is_relative_to(CLIENT)
}
TREES = {module: tree_of(path) for module, path in PATHS.items()}
IMPORTS = {module: set(imports(tree, module, set(PATHS))) for module, tree in TREES.items()}


def says_pure(module: str) -> bool:
    first_lines = (ast.get_docstring(TREES[module]) or "").split("\n\n")[0]
    return re.search(r"(^|[.)»] )Pure[.;:]", first_lines.replace("\n", " ")) is not None


PURE_MODULES = {module for module in PATHS if module not in PACKAGES and says_pure(module)}


def is_stdlib(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def offenders(library: str, allowed: re.Pattern[str]) -> list[str]:
    using = (module for module, names in IMPORTS.items() if any(within(name, library) for name in names))
    return [module for module in using if not allowed.fullmatch(module)]


def test_whole_tree_is_checked() -> None:
    assert {f"{service}.__main__" for service in SERVICES} <= set(PATHS)
    assert len(PATHS) > 40
    assert any("aio_pika" in names for names in IMPORTS.values())


# 1 ------------------------------------------------------------------------------------------------------------------


def test_shared_imports_no_service() -> None:
    for module, names in IMPORTS.items():
        if within(module, "shared"):
            assert not [name for name in names for service in SERVICES if within(name, service)], module


def test_required_pure_modules_say_so() -> None:
    assert {module for module in PURE - PURE_MODULES if module in PATHS} == set()
    assert {module for module in PURE if module not in PATHS} == set()


@pytest.mark.parametrize("module", sorted(PURE_MODULES | GROUND))
def test_pure_modules_import_only_pure_modules(module: str) -> None:
    for name in IMPORTS[module]:
        if name in PATHS:
            assert name in PURE_MODULES | GROUND | {settings for settings in PATHS if settings.endswith(".settings")}
        else:
            assert name.partition(".")[0] in PURE_LIBRARIES or is_stdlib(name), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(PURE_MODULES))
def test_pure_modules_never_wait(module: str) -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(TREES[module]) if isinstance(node, waits)]
    assert not {name for name in IMPORTS[module] if name.partition(".")[0] in WAITING}


def test_settings_import_only_settings_and_vocabulary() -> None:
    for module in PATHS:
        if module.endswith(".settings"):
            ours = {name for name in IMPORTS[module] if name in PATHS}
            assert ours <= GROUND | PURE_MODULES, module


# 2 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_services_import_no_other_service(service: str) -> None:
    others = [*(other for other in SERVICES if other != service), "deploy", "tests"]
    for module, names in IMPORTS.items():
        if within(module, service):
            assert not [name for name in names for other in others if within(name, other)], module


def test_python_client_needs_aiohttp_and_msgspec_alone() -> None:
    for path in sorted((CLIENT / "python" / "realtime_client").glob("*.py")):
        used = {name.partition(".")[0] for name in imports(tree_of(path), path.stem, set())}
        outside = {name for name in used if not is_stdlib(name)} - {"realtime_client"}
        assert outside <= ({"aiohttp", "msgspec"} if path.stem == "transport" else {"msgspec"}), path


def test_only_the_command_line_uses_the_python_client() -> None:
    using = [module for module, names in IMPORTS.items() if any(within(name, "realtime_client") for name in names)]
    assert using == ["gateway.cli.tail"]


@pytest.mark.parametrize("package", [*PACKAGES, "deploy"])
def test_packages_of_a_service_form_no_cycle(package: str) -> None:
    """Imports point downwards only: an order of the sub-packages exists in which each imports only those before it."""
    needs: dict[str, set[str]] = {}
    for path in sorted((PROJECT / package).rglob("*.py")):
        module = module_name(path)
        if path.is_relative_to(CLIENT) or module == package or module == f"{package}.__main__":
            continue
        own = ".".join(module.split(".")[:2])
        used = {".".join(name.split(".")[:2]) for name in imports(tree_of(path), module, set(PATHS))}
        needs.setdefault(own, set()).update(name for name in used - {own} if within(name, package))
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(f"an import cycle: {' -> '.join(error.args[1])}")


# 3 ------------------------------------------------------------------------------------------------------------------


def test_composition_roots_are_not_imported() -> None:
    roots = {f"{service}.__main__" for service in SERVICES}
    assert not [module for module, names in IMPORTS.items() if names & roots]


def reads_environment(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "getenvb" | "putenv"):
                return True
            case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {alias.name for alias in names}:
                return True
    return False


def test_only_settings_read_environment() -> None:
    assert [module for module, tree in TREES.items() if reads_environment(tree)] == ["shared.process.settings"]


def test_only_composition_roots_load_settings() -> None:
    loading = {module for module, names in IMPORTS.items() if "shared.process.lifecycle" in names}
    assert loading == {f"{service}.__main__" for service in SERVICES}


# 4 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["aio_pika", "aiormq", "pamqp"])
def test_only_bus_imports_aio_pika(library: str) -> None:
    assert offenders(library, BROKER) == []


@pytest.mark.parametrize("library", ["motor", "pymongo", "bson", "gridfs"])
def test_only_stores_import_database_driver(library: str) -> None:
    assert offenders(library, DATABASE) == []


def test_only_edges_import_aiohttp() -> None:
    assert offenders("aiohttp", AIOHTTP) == []


def test_gateway_imports_no_database() -> None:
    """`realtime doctor` is a tool of operators, no part of the gateway."""
    using = [module for module, names in IMPORTS.items() if within(module, "gateway") and "shared.mongo" in names]
    assert using == ["gateway.cli.doctor.probes"]


def test_only_lifecycle_imports_uvloop() -> None:
    assert offenders("uvloop", re.compile(r"shared\.process\.lifecycle")) == []


def test_only_tracing_imports_opentelemetry() -> None:
    assert offenders("opentelemetry", re.compile(r"shared\.telemetry\.tracing")) == []


def test_opentelemetry_is_imported_only_if_configured() -> None:
    imported = (
        "import sys, shared.bus.bus, shared.mongo, shared.process.lifecycle; sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", imported], cwd=PROJECT, check=False).returncode == 0


def test_only_declared_libraries_are_imported() -> None:
    """Third-party imports must be in pyproject's dependencies; OpenTelemetry is an extra."""
    used = {name.partition(".")[0] for names in IMPORTS.values() for name in names}
    outside = {
        name for name in used if name not in {*PACKAGES, "opentelemetry", "realtime_client"} and not is_stdlib(name)
    }
    declared = (PROJECT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional")[0].lower()
    distributions = {"jwt": "pyjwt[crypto]", "prometheus_client": "prometheus-client", "aio_pika": "aio-pika"}
    brought_along = {
        "aiormq": "aio-pika",
        "pamqp": "aio-pika",
        "yarl": "aiohttp",
        "pymongo": "motor",
        "bson": "motor",
        "cryptography": "pyjwt[crypto]",
    }
    for name in outside:
        assert f'"{(distributions | brought_along).get(name, name)}~=' in declared, name
