"""The gateway process, `python -m gateway`: the composition root."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from gateway.admission.admission import Admission
from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.open_connections import OpenConnections
from gateway.admission.pace import Pace
from gateway.auth.authenticator import Authenticator
from gateway.auth.jwks import PublishedKeys
from gateway.auth.jwks_schedule import JwksSchedule
from gateway.auth.revocations import RevocationList, RevocationListSync
from gateway.auth.token_verifier import TokenVerifier
from gateway.backend import Backend
from gateway.background import Spawn, background
from gateway.commands.router import CommandRouter
from gateway.documents.routes import document_routes
from gateway.fanout.fan_out import FanOut
from gateway.http.acceptor import Acceptor, bind, measure_loop_lag
from gateway.http.app import make_app
from gateway.http.pages import Pages
from gateway.http.server import Runner
from gateway.live.authentication import Authentication
from gateway.live.connection_limit import ConnectionLimit
from gateway.live.connections import Connections
from gateway.live.control import ControlDispatcher
from gateway.live.drain import drain
from gateway.live.endpoint import LiveEndpoint
from gateway.live.missed_items import MissedItems
from gateway.live.presence import Reporter, Roster
from gateway.live.requests import LiveRequests
from gateway.live.restoration import Restoration
from gateway.live.subscriptions import Subscriptions
from gateway.rest.groups import GROUPS
from gateway.settings import GatewaySettings
from gateway.user_rates import UserRates
from shared.bus.bus import Bus
from shared.byte_budget import ByteBudget
from shared.errors import SettingsInvalid
from shared.process import lifecycle
from shared.process.admin import Admin, Readiness, not_started_yet
from shared.telemetry import logs

log = logs.get(__name__)

READS_MAX_BYTES = 64 * 1024 * 1024  # of pages and replays, from the request until their clients have read them
READS_OF_USER_MAX_BYTES = 8 * 1024 * 1024
DRAIN_SHARE = 0.6  # of DRAIN_TIMEOUT_S, for closing the sockets; the rest is for the steps after that


class GatewayParts:
    """The parts of one gateway process, in the order of their dependencies.

    `spawn` starts tasks that are cancelled after the drain. Tasks of the group `tasks` are awaited to their end.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        verifier: TokenVerifier,
        bus: Bus,
        node_id: str,
        tasks: asyncio.TaskGroup,
        spawn: Spawn,
    ) -> None:
        self.settings = settings
        self.pace = Pace()
        self.admission_queue = AdmissionQueue(self.pace, time.monotonic)
        queue = bus.private_queue("gateway", lambda body: self.fan_out.on_body(body))
        self.router = CommandRouter(bus, queue, lambda: self.restoration.reset())
        self.backend = backend = Backend(bus, self.router, spawn)
        self.keys = _published_keys(settings, verifier)
        revocations = RevocationList()
        self.revocations = RevocationListSync(
            revocations, backend, lambda revocation: authentication.enforce_revocation(revocation.user_id)
        )
        self.authenticator = Authenticator(verifier, revocations, None if self.keys is None else self.keys.refresh)
        self.fan_out = FanOut(
            bus,
            backend,
            queue,
            spawn,
            lambda delivery: self.control.dispatch(delivery),
            self.router.on_answer,
            self.revocations,
        )
        hub, membership, recovery = self.fan_out.hub, self.fan_out.membership, self.fan_out.recovery
        self.connections = connections = Connections(tasks.create_task)
        self.connection_limit = limit = ConnectionLimit(connections, bus, node_id, settings.max_connections_per_user)
        roster = Roster()
        self.reporter = Reporter(roster, backend, node_id, time.monotonic)
        authentication = Authentication(settings, self.authenticator, membership, connections, limit, roster)
        self.reads = ByteBudget("gateway", READS_MAX_BYTES, READS_OF_USER_MAX_BYTES)
        missed_items = MissedItems(backend, self.reads, tasks.create_task)
        subscriptions = Subscriptions(backend, hub, membership, missed_items, self.fan_out.activity)
        self.control = ControlDispatcher(membership, recovery, subscriptions, limit, self.revocations)
        self.rates = UserRates(settings)
        requests = LiveRequests(backend, subscriptions, self.rates, tasks.create_task)
        chance = random.Random()  # noqa: S311 - not a secret
        self.restoration = Restoration(
            connections, requests.forget, self.fan_out.forget_items, self.revocations.start_over
        )
        self.open_connections = OpenConnections(settings, chance)
        admission = Admission(settings, self.pace, self.open_connections, chance)
        self.endpoint = LiveEndpoint(settings, admission, self.admission_queue, connections, authentication, requests)

    def checks(self) -> dict[str, Readiness]:
        """Return the readiness checks, by name."""
        checks: dict[str, Readiness] = {
            "deliveries": self.fan_out.readiness,
            "drain": self.endpoint.readiness,
            "clock": self.router.readiness,
        }
        return checks if self.keys is None else checks | {"keys": self.keys.readiness}

    def background_work(self) -> list[Coroutine[Any, Any, None]]:
        """Return the work that runs from before the broker is connected until after the last socket is closed."""
        work = [
            self.fan_out.run(),
            self.fan_out.watch_for_stalls(),
            self.router.run(),
            self.connections.sweep_sessions(),
            self.connections.sweep_slow(),
            self.connection_limit.run(),
        ]
        return work if self.keys is None else [*work, self.keys.run()]

    def application(self) -> web.Application:
        """Return the HTTP application with all routes."""
        groups = [group(self.authenticator, self.backend, self.rates.reads, self.reads) for group in GROUPS.values()]
        routes = [route for group in groups for route in group.routes()]
        pages = Pages(self.settings).routes()
        return make_app(self.settings, self.authenticator, self.endpoint, [*routes, *document_routes(), *pages])


async def serve(settings: GatewaySettings, node_id: str, stop: asyncio.Event) -> None:
    """Serve WebSocket and REST until `stop` is set, then drain."""
    verifier = _verifier(settings)
    admin = Admin(settings)
    admin.checks["start"] = not_started_yet
    async with (
        admin.serving(settings.admin_host, settings.admin_port),
        Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s, declares_queues=False) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        with lifecycle.stopping_on_failure(stop), background(tasks) as spawn:
            gateway = GatewayParts(settings, verifier, bus, node_id, tasks, spawn)
            admin.dependencies["broker"] = bus.readiness  # shared by all gateways: each answers UNAVAILABLE itself
            admin.checks |= gateway.checks()
            bus.on_connected.append(gateway.revocations.connected)
            for work in gateway.background_work():
                spawn(work)
            await lifecycle.run_until(stop, bus.wait_connected())
            reporting = spawn(gateway.reporter.run())
            spawn(gateway.revocations.run())
            await lifecycle.run_until(stop, gateway.revocations.loaded())  # otherwise banned users could authenticate
            async with _listening(gateway, tasks) as stop_listening:
                del admin.checks["start"]
                await stop.wait()
                gateway.endpoint.stop_admitting()
                stop_listening()  # clients that reconnect reach another gateway
                await drain(gateway.connections, settings.drain_timeout_s * DRAIN_SHARE)
            reporting.cancel()  # a report after `leave` would undo it
            await asyncio.wait([reporting])
            await gateway.reporter.leave()


@asynccontextmanager
async def _listening(gateway: GatewayParts, tasks: asyncio.TaskGroup) -> AsyncIterator[Callable[[], None]]:
    """Listen while in the context, or until the yielded function is called. Raises OSError if the port is taken.

    Several gateways on this host may share the port.
    """
    settings, pace, connections = gateway.settings, gateway.pace, gateway.open_connections
    runner = Runner(gateway.application(), pace, connections, gateway.endpoint.upgrade_at_once, shutdown_timeout=1.0)
    await runner.setup()
    running: list[asyncio.Task[None]] = []

    def stop() -> None:
        for task in running:
            task.cancel()

    try:
        listeners = await bind(settings.gateway_host, settings.gateway_port)
        accepting = [Acceptor(listener, pace, connections, runner.protocol).run() for listener in listeners]
        work = (*accepting, runner.sweep(), measure_loop_lag(pace, gateway.admission_queue))
        running += [tasks.create_task(one) for one in work]
        log.info("gateway_listening", host=settings.gateway_host, port=listeners[0].getsockname()[1])
        yield stop
    finally:
        stop()
        with suppress(TimeoutError):
            await runner.cleanup()


def _verifier(settings: GatewaySettings) -> TokenVerifier:
    """Return the verifier; exit the process if its settings are invalid."""
    try:
        return TokenVerifier(settings)
    except SettingsInvalid as invalid:
        for problem in invalid.problems:
            sys.stderr.write(f"gateway: wrong setting: {problem}\n")
        sys.exit(lifecycle.EXIT_SETTINGS)


def _published_keys(settings: GatewaySettings, verifier: TokenVerifier) -> PublishedKeys | None:
    """Return the issuer's published keys; None if no URL is configured."""
    if settings.jwt_jwks_url is None:
        return None
    return PublishedKeys(settings.jwt_jwks_url, JwksSchedule(settings.jwt_jwks_refresh_s), verifier.publish)


if __name__ == "__main__":
    lifecycle.run("gateway", GatewaySettings, serve)
