"""Ticks from CSV files: in real time, n times as fast, or as fast as they can be stored.

Ticks keep the times of the file. The position in a file is stored together with its ticks: a restart continues after
the last stored tick, and a finished file is not replayed again. A file whose contents change counts as a new file.
"""

import asyncio
import csv
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Literal, NamedTuple, TextIO

from market_feed import metrics
from market_feed.market import Position, Source
from market_feed.quotes import Tick
from market_feed.sources.csv_rows import Layout, candle_ms, read_header, read_row, read_time_ms
from market_feed.sources.tick_sink import TickSink
from shared.errors import Malformed, Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

TICKS_AT_ONCE = 2000
TICKS_A_ROW_MAX = 4
STEP_ROWS = 1000  # rows that determine the length of a candle
BAD_ROWS_LOGGED = 100
RETRY_S = 0.5

Speed = float | Literal["full"]


class Numbered(NamedTuple):
    """A tick and its number in the file, which is the same in every reading."""

    number: int
    tick: Tick


class CsvReplay:
    """Replays one file. A malformed row is logged with its line number, counted and skipped."""

    def __init__(
        self,
        sink: TickSink,
        stale_s: float,
        path: Path,
        symbol: str | None,
        speed: Speed,
        clock_ms: Callable[[], int],
    ) -> None:
        self._sink = sink
        self._source = Source("replay", stale_s)
        self._clock_ms = clock_ms
        self._path = path
        self._symbol = symbol
        self._speed = speed
        self._name = ""
        self._bad = 0

    async def run(self) -> None:
        """Replay the file once, from its stored position."""
        try:
            self._name = await asyncio.to_thread(self._identify)
            done = self._sink.position_of(self._name)
            ticks = (numbered for numbered in self._ticks() if numbered.number > done)
            if self._speed == "full":
                while chunk := list(islice(ticks, TICKS_AT_ONCE)):
                    await self._take(chunk)
            else:
                await self._run_paced(ticks, self._speed)
        except (OSError, Malformed) as error:
            log.error("replay_failed", file=self._path.name, reason=str(error))
        else:
            log.info("replay_finished", file=self._path.name, bad_rows=self._bad)

    async def _run_paced(self, ticks: Iterator[Numbered], speed: float) -> None:
        """Apply all ticks that are due, then wait for the next."""
        started_s = time.monotonic()
        first_ms: int | None = None
        due: list[Numbered] = []
        for numbered in ticks:
            at_ms = numbered.tick.at_ms
            first_ms = at_ms if first_ms is None else first_ms
            wait_s = started_s + (at_ms - first_ms) / 1000 / speed - time.monotonic()
            if due and (wait_s > 0 or len(due) >= TICKS_AT_ONCE):
                await self._take(due)
                due = []
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            due.append(numbered)
        if due:
            await self._take(due)

    async def _take(self, chunk: list[Numbered]) -> None:
        """Apply ticks and wait until they are stored, which sets the pace. Retries until it succeeds."""
        position = Position(self._name, chunk[-1].number)
        ticks = [numbered.tick for numbered in chunk]
        while True:
            try:
                self._sink.ingest(self._source, ticks, position=position)
                break
            except Unavailable:
                await asyncio.sleep(RETRY_S)
        while True:
            try:
                await self._sink.keep_up()
                break
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    def _identify(self) -> str:
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
        return f"replay:{self._path.name}:{self._symbol or ''}:{digest}"

    def _ticks(self) -> Iterator[Numbered]:
        duration_ms = self._candle_ms()
        with self._open() as file:
            rows = _rows(file)
            layout = self._header(rows)
            for row_number, (line, row) in enumerate(rows):
                try:
                    ticks = self._read_row(layout, row, duration_ms)
                except Malformed as error:
                    self._refuse(line, str(error))
                    continue
                yield from map(Numbered, count(row_number * TICKS_A_ROW_MAX + 1), ticks)

    def _read_row(self, layout: Layout, row: list[str], duration_ms: int) -> list[Tick]:
        ticks = read_row(layout, row, self._symbol, duration_ms, self._clock_ms())
        if not self._sink.has_room_for(ticks[0].symbol):
            raise Malformed(f"symbol: {ticks[0].symbol!r} is beyond the symbol limit")
        return ticks

    def _candle_ms(self) -> int:
        with self._open() as file:
            rows = _rows(file)
            layout = self._header(rows)
            times: list[int] = []
            for _, row in islice(rows, STEP_ROWS):
                with suppress(Malformed, IndexError):  # reported when the row is replayed
                    times.append(read_time_ms(row[layout.time]))
            return candle_ms(times)

    def _open(self) -> TextIO:
        return self._path.open(newline="", encoding="utf-8-sig", errors="replace")

    def _header(self, rows: Iterator[tuple[int, list[str]]]) -> Layout:
        _, names = next(rows, (0, []))
        return read_header(names, needs_symbol=self._symbol is None)

    def _refuse(self, line: int, reason: str) -> None:
        metrics.TICKS_BAD.labels(self._source.name).inc()
        self._bad += 1
        if self._bad <= BAD_ROWS_LOGGED:
            log.warning("csv_row_skipped", file=self._path.name, line=line, reason=reason)


def _rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the columns of each row.

    A quoted field cannot span lines, so a stray quote costs one row.
    """
    for line, row in enumerate(csv.reader(file, quoting=csv.QUOTE_NONE), 1):
        if row:
            yield line, [column.strip().strip('"') for column in row]
