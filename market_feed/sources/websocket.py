"""Ticks from an upstream WebSocket feed: connect, subscribe, read; reconnect with backoff when it ends or stalls."""

import asyncio
import random
from collections.abc import Callable

import aiohttp

from market_feed import metrics
from market_feed.market import Source
from market_feed.quotes import Tick
from market_feed.sources.mapping import FeedSpec, UpstreamTick, read_frame
from market_feed.sources.tick_sink import TickSink
from shared.backoff import Backoff
from shared.bus.events import short_event_key
from shared.encoding import to_json
from shared.errors import Malformed, Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
FRAME_MAX_BYTES = 4 * 1024 * 1024
BAD_LOGGED_PER_CONNECTION = 10


class WebSocketFeed:
    """One upstream feed. It cannot wait, so its ticks are skipped while the database is unavailable."""

    def __init__(self, sink: TickSink, spec: FeedSpec, clock_ms: Callable[[], int]) -> None:
        self._sink = sink
        self._spec = spec
        self._clock_ms = clock_ms
        self._source = Source(f"websocket:{spec.name}", spec.stale_s)
        self._had_tick = False
        self._bad = 0

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        connected = metrics.UPSTREAM_CONNECTED.labels(self._source.name)
        async with aiohttp.ClientSession() as session:
            while True:
                self._had_tick, self._bad = False, 0
                reason = ""
                try:
                    await self._run_connection(session)
                except (Unavailable, aiohttp.ClientError, OSError) as error:
                    reason = str(error) or type(error).__name__
                finally:
                    connected.set(0)
                if self._had_tick:
                    backoff.reset()
                pause_s = backoff.next_s() * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnects
                log.warning("upstream_lost", feed=self._spec.name, reason=reason, retry_in_s=round(pause_s, 2))
                metrics.UPSTREAM_RECONNECTS.labels(self._source.name).inc()
                await asyncio.sleep(pause_s)

    async def _run_connection(self, session: aiohttp.ClientSession) -> None:
        """Connect and subscribe, then read until the connection ends. Raises Unavailable."""
        spec = self._spec
        try:
            async with asyncio.timeout(spec.connect_timeout_s):
                socket = await session.ws_connect(spec.url, max_msg_size=FRAME_MAX_BYTES)
        except TimeoutError as error:
            raise Unavailable(f"not connected within {spec.connect_timeout_s:g} s") from error
        async with socket:
            for frame in spec.subscribe:
                await socket.send_str(to_json(frame).decode())
            log.info("upstream_connected", feed=spec.name)
            metrics.UPSTREAM_CONNECTED.labels(self._source.name).set(1)
            while True:
                self._take(await self._receive(socket))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> str | bytes:
        try:
            message = await socket.receive(timeout=self._spec.silent_s)
        except TimeoutError as error:
            raise Unavailable(f"silent for {self._spec.silent_s:g} s") from error
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        raise Unavailable(f"closed by the other side: {socket.close_code}")

    def _take(self, body: str | bytes) -> None:
        try:
            reading = read_frame(self._spec, body, self._clock_ms())
        except Malformed as error:
            self._refuse(str(error))
            return
        for problem in reading.problems:
            self._refuse(problem)
        self._offer(reading.ticks)

    def _offer(self, read: list[UpstreamTick]) -> None:
        ticks: list[Tick] = []
        keys: dict[bytes, None] = {}
        for tick, tick_id in ((entry.tick, entry.id) for entry in read):
            if not self._sink.has_room_for(tick.symbol):
                self._refuse(f"symbol: {tick.symbol!r} is beyond the symbol limit")
                continue
            if tick_id is not None:
                key = short_event_key(self._source.name, f"{tick.symbol} {tick_id}")
                if key in keys or not self._sink.is_new(key):
                    continue
                keys[key] = None
            ticks.append(tick)
        if ticks:
            self._had_tick = True
            self._sink.offer(self._source, ticks, feed_keys=list(keys))

    def _refuse(self, problem: str) -> None:
        metrics.TICKS_BAD.labels(self._source.name).inc()
        self._bad += 1
        if self._bad <= BAD_LOGGED_PER_CONNECTION:
            log.warning("upstream_frame_invalid", feed=self._spec.name, reason=problem[:300])
