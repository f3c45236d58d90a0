"""gateway: `python -m gateway`. The composition root."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from gateway.admission.admission import Admission
from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.pace import Pace
from gateway.auth.authenticator import Authenticator
from gateway.auth.guard import Guard
from gateway.auth.jwks import PublishedKeys
from gateway.auth.jwks_schedule import JwksSchedule
from gateway.auth.revocations import RevocationList, RevocationListSync
from gateway.backend import Backend
from gateway.documents.routes import document_routes
from gateway.fanout.hub import Hub
from gateway.fanout.relay import Relay
from gateway.http.acceptor import Acceptor, bind, probe
from gateway.http.app import Runner, make_app
from gateway.http.pages import Pages
from gateway.live.connection_limit import UserSockets
from gateway.live.connections import Connections
from gateway.live.drain import drain
from gateway.live.endpoint import Live
from gateway.live.presence import Reporter, Roster
from gateway.rest.groups import GROUPS
from gateway.settings import GatewaySettings
from shared.bus.bus import Bus
from shared.errors import SettingsInvalid
from shared.process import lifecycle
from shared.process.admin import Admin, starting
from shared.telemetry import logs

log = logs.get(__name__)

DRAIN_SHARE = 0.6  # of DRAIN_TIMEOUT_S, for closing the sockets; the rest is for what comes after


async def serve(settings: GatewaySettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: sockets and REST."""
    try:
        authenticator = Authenticator(settings)
    except SettingsInvalid as invalid:
        for problem in invalid.problems:
            sys.stderr.write(f"gateway: wrong setting: {problem}\n")
        sys.exit(lifecycle.EXIT_SETTINGS)
    admin = Admin()
    admin.checks["start"] = starting
    async with (
        admin.serving(settings.admin_host, settings.admin_port),
        Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        admin.checks["broker"] = bus.readiness
        hub, backend, roster = Hub(), Backend(bus), Roster()
        standings = RevocationList()
        keeping_keys, refresh_keys = [], None
        if settings.jwt_jwks_url is not None:
            keys = PublishedKeys(
                settings.jwt_jwks_url, JwksSchedule(settings.jwt_jwks_refresh_s), authenticator.publish
            )
            admin.checks["keys"], refresh_keys = keys.readiness, keys.refresh
            keeping_keys = [keys.run()]
        guard = Guard(authenticator, standings, refresh_keys)
        pace = Pace()
        turns = AdmissionQueue(pace, time.monotonic)
        admission = Admission(settings, pace, random.Random())  # noqa: S311 - not a secret
        connections = Connections(tasks.create_task)
        user_sockets = UserSockets(connections, bus, node_id, settings.max_connections_per_user)
        live = Live(settings, guard, backend, hub, roster, tasks, admission, turns, connections, user_sockets)
        keeper = RevocationListSync(standings, backend, lambda standing: live.enforce(standing.user_id))
        live.on_standing = keeper.learn
        bus.on_connected.append(keeper.connected)
        live.subscriptions.relay = relay = Relay(hub, bus, backend, node_id, live.on_control)
        reporter = Reporter(roster, backend, node_id, time.monotonic)
        admin.checks["deliveries"] = relay.readiness
        admin.checks["presence"] = reporter.readiness
        admin.checks["drain"] = live.readiness
        running = [
            tasks.create_task(work)
            for work in (
                relay.run(),
                connections.sweep_sessions(),
                connections.sweep_slow(),
                user_sockets.run(),
                *keeping_keys,
            )
        ]
        await lifecycle.until(stop, bus.wait_connected())
        reporting = tasks.create_task(reporter.run())
        running.append(tasks.create_task(keeper.run()))
        routes = [route for group in GROUPS.values() for route in group(guard, backend).routes()]
        app = make_app(settings, guard, live, [*routes, *document_routes(), *Pages(settings).routes()])
        async with listening(settings, app, pace, turns, tasks) as stop_listening:
            del admin.checks["start"]
            await stop.wait()
            live.leave()
            stop_listening()  # who comes back goes to another gateway
            await drain(connections, settings.drain_timeout_s * DRAIN_SHARE)
        reporting.cancel()  # a report behind the leave would take it back
        await asyncio.wait([reporting])
        await reporter.leave()
        for task in running:
            task.cancel()


@asynccontextmanager
async def listening(
    settings: GatewaySettings, app: web.Application, pace: Pace, turns: AdmissionQueue, tasks: asyncio.TaskGroup
) -> AsyncIterator[Callable[[], None]]:
    """Listen while in the context, or until the yielded function is called. Raises OSError if the port cannot be had.

    The port is shared with other gateways on this host.
    """
    runner = Runner(app, pace, shutdown_timeout=1.0)
    await runner.setup()
    running: list[asyncio.Task[None]] = []

    def stop() -> None:
        for task in running:
            task.cancel()

    try:
        listeners = await bind(settings.gateway_host, settings.gateway_port)
        accepting = [Acceptor(listener, pace, runner.protocol).run() for listener in listeners]
        running += [tasks.create_task(work) for work in (*accepting, runner.sweep(), probe(pace, turns))]
        log.info("gateway_listening", host=settings.gateway_host, port=listeners[0].getsockname()[1])
        yield stop
    finally:
        stop()
        with suppress(TimeoutError):
            await runner.cleanup()


if __name__ == "__main__":
    lifecycle.run("gateway", GatewaySettings, serve)
