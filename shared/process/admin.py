"""The admin server of a process.

`/healthz` (the process runs), `/readyz` (it can do its work), `/metrics`, and `/settings` (without secrets).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.encoding import to_json
from shared.process.settings import FromEnvironment, revision, shown_settings
from shared.telemetry import logs, metrics
from shared.version import VERSION

log = logs.get(__name__)

CHECK_TIMEOUT_S = 2.0

Readiness = Callable[[], Awaitable[str | None]]


class Admin:
    """Answers probes. A check returns None if ready, otherwise the reason, which the answer lists by check name.

    `dependencies` are checked and reported alike, but do not make the process unready.
    """

    def __init__(self, settings: FromEnvironment) -> None:
        self._settings = settings
        self.checks: dict[str, Readiness] = {}
        self.dependencies: dict[str, Readiness] = {}
        self._began_at_s = time.monotonic()
        self.port = 0
        self._asked: set[str] = set()

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve while in the context. Port 0 picks a free one: see `port`. Raises OSError for a taken port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/settings", self._show_settings),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            self.port = runner.addresses[0][1]
            log.info("admin_listening", port=self.port)
            yield
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """Answer 200. Only a hung event loop fails this probe: an unavailable dependency does not justify a restart."""
        uptime_s = round(time.monotonic() - self._began_at_s)
        return web.json_response({"status": "ok", "uptimeS": uptime_s, "version": VERSION, "revision": revision()})

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = {**self.dependencies, **self.checks}
        answers = await asyncio.gather(*map(_answer, checks.values()))
        reasons = {name: reason for name, reason in zip(checks, answers, strict=True) if reason is not None}
        for name in checks:
            metrics.READY.labels(name).set(name not in reasons)
        for name in self._asked - checks.keys():
            metrics.READY.remove(name)
        self._asked = set(checks)
        is_ready = reasons.keys().isdisjoint(self.checks)
        body = to_json({"status": "ready" if is_ready else "not ready", "checks": list(checks), "reasons": reasons})
        return web.Response(status=200 if is_ready else 503, body=body, content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _show_settings(self, _: web.Request) -> web.Response:
        return web.json_response(shown_settings(self._settings))


async def _answer(check: Readiness) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"


async def not_started_yet() -> str:
    """Return why a starting process is not ready. The composition root removes this check once it has started."""
    return "waiting for broker, database or notifier"
