"""The admin server of a process: `/healthz` (the process runs), `/readyz` (it can do its work), `/metrics`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import logs
from shared.encoding import to_json

log = logs.get(__name__)

Readiness = Callable[[], Awaitable[str | None]]


class Admin:
    """Answers probes. A check returns None when ready, else the reason; its name stands in the answer."""

    def __init__(self) -> None:
        self.checks: dict[str, Readiness] = {}
        self.port = 0

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve while in the context. Port 0 picks one: see `port`. Raises OSError when the port is taken."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
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
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = list(self.checks.items())
        reasons = {name: reason for name, check in checks if (reason := await check()) is not None}
        body = to_json({"status": "not ready" if reasons else "ready", "reasons": reasons})
        return web.Response(status=503 if reasons else 200, body=body, content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def starting() -> str:
    """The check of a process that is not composed yet; its root takes it away at the end."""
    return "waiting for broker or database"
