"""The issuer's published keys (`JWT_JWKS_URL`), fetched in the background and on demand for an unknown key.

One task fetches (single-flight); requests that need a new key wait for it. While the issuer is unreachable, the last
known keys stay in use.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from gateway import metrics
from gateway.auth.jwks_schedule import FETCH_TIMEOUT_S, JwksSchedule
from gateway.auth.keys import KeySet, parse_key_set
from shared.errors import Malformed, Unavailable
from shared.telemetry import logs
from shared.waiting import is_set_within

log = logs.get(__name__)

BODY_MAX_BYTES = 256 * 1024


class PublishedKeys:
    """Keeps the verifier's keys in step with the issuer's. `run` must be running."""

    def __init__(self, url: str, schedule: JwksSchedule, publish: Callable[[KeySet], None]) -> None:
        self._url = url
        self._schedule = schedule
        self._publish = publish
        self._wanted = asyncio.Event()
        self._fetched = asyncio.Condition()
        self._fetches = 0

    async def readiness(self) -> str | None:
        """Return None once keys have been fetched, otherwise the reason."""
        return None if self._schedule.has_succeeded else "the issuer's keys have not been fetched yet"

    async def refresh(self) -> None:
        """Fetch the keys now, unless within the cooldown. Raises Unavailable if the last fetch failed."""
        if self._schedule.may_fetch(time.monotonic()):
            fetches = self._fetches
            self._wanted.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(FETCH_TIMEOUT_S + 1), self._fetched:
                    await self._fetched.wait_for(lambda: self._fetches > fetches)
        if self._schedule.has_failed:
            raise Unavailable("the issuer's keys cannot be fetched at the moment")

    async def run(self) -> None:
        """Fetch when due or requested, until cancelled."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S), headers={"Accept": "application/json"}
        ) as http:
            while True:
                await self._until_due()
                self._schedule.begin(time.monotonic())
                await self._fetch(http)
                self._wanted.clear()
                async with self._fetched:
                    self._fetches += 1
                    self._fetched.notify_all()

    async def _until_due(self) -> None:
        """Wait until a fetch is due or requested."""
        await is_set_within(self._wanted, self._schedule.due_in_s(time.monotonic()))

    async def _fetch(self, http: aiohttp.ClientSession) -> None:
        try:
            keys = parse_key_set(await self._body(http))
        except (aiohttp.ClientError, OSError, TimeoutError, Malformed) as error:
            self._schedule.failed()
            metrics.JWKS_FETCHES.labels("failed").inc()
            log.warning("jwks_fetch_failed", reason=str(error) or type(error).__name__)
            return
        self._schedule.succeeded()
        metrics.JWKS_FETCHES.labels("ok").inc()
        log.info("jwks_fetched", keys=len(keys), unusable=keys.unusable)
        self._publish(keys)

    async def _body(self, http: aiohttp.ClientSession) -> bytes:
        """Return the response body. Redirects are not followed: the target would not be trusted to publish keys."""
        async with http.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise Malformed(f"the issuer answered with status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BODY_MAX_BYTES:
                    raise Malformed(f"the key set has more than {BODY_MAX_BYTES} bytes")
            return bytes(body)
