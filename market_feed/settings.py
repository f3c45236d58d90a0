"""The settings of market_feed; see shared/process/settings.py."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from market_feed.sources.mapping import FeedSpec, parse_feeds
from shared.errors import SettingsInvalid
from shared.process.settings import Port, Seconds, WorkerSettings
from shared.protocol.validation import is_symbol


class SourceKind(StrEnum):
    """The values of MARKET_SOURCE; commas separate several."""

    SIM = "sim"
    AMQP = "amqp"
    WEBSOCKET = "websocket"
    REPLAY = "replay"


class ReplayFile(NamedTuple):
    """A file of MARKET_REPLAY_FILES; without `symbol` the file has a column of that name."""

    path: Path
    symbol: str | None


class MarketSettings(WorkerSettings, frozen=True, kw_only=True):
    """Settings of market_feed. `market_source` lists the sources besides the ticks of `realtime.events`.

    Those ticks are always consumed: the contract promises it, and a queue without a consumer would grow. So `amqp`
    alone means that no other source runs.
    """

    admin_port: Port = 9102
    market_source: tuple[SourceKind, ...] = (SourceKind.SIM,)
    market_symbols: tuple[str, ...] = ()  # the symbols of `sim`; empty: all built-in ones
    market_sim_seed: int = 1
    market_sim_ticks_per_s: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 4.0  # per symbol
    market_websocket_file: str = ""  # TOML; see docs/market-sources.md
    market_replay_files: tuple[str, ...] = ()  # `path`, or `symbol=path`
    market_replay_speed: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | Literal["full"] = "full"  # 1: real time
    market_stale_s: Seconds = 60.0  # time without a tick; a websocket feed has its own
    market_commit_interval_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.5  # for sources without acks
    market_cut_interval_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0  # of checkpoints; cut is their older name
    market_tick_ttl_s: Annotated[float, msgspec.Meta(ge=3600)] = 21_600.0
    market_lease_s: Annotated[float, msgspec.Meta(ge=1, le=300)] = 5.0

    def problems(self) -> list[str]:
        """Return the base problems, and the invalid symbols, feeds and files."""
        found = super().problems()
        found += [
            f"MARKET_SYMBOLS: {symbol!r} is not a symbol" for symbol in self.market_symbols if not is_symbol(symbol)
        ]
        if SourceKind.WEBSOCKET in self.market_source:
            found += self._websocket_problems()
        if SourceKind.REPLAY in self.market_source:
            found += self._replay_problems()
        return found

    def feeds(self) -> tuple[FeedSpec, ...]:
        """Return the upstream feeds of MARKET_WEBSOCKET_FILE. Raises SettingsInvalid and OSError."""
        return parse_feeds(Path(self.market_websocket_file).read_text(encoding="utf-8"))

    def replay_files(self) -> list[ReplayFile]:
        """Return the entries of MARKET_REPLAY_FILES."""
        found: list[ReplayFile] = []
        for entry in self.market_replay_files:
            symbol, separator, path = entry.partition("=")
            found.append(ReplayFile(Path(path), symbol) if separator else ReplayFile(Path(entry), None))
        return found

    def _websocket_problems(self) -> list[str]:
        if not self.market_websocket_file:
            return ["MARKET_WEBSOCKET_FILE: is not set, but MARKET_SOURCE has websocket"]
        try:
            self.feeds()
        except SettingsInvalid as invalid:
            return [f"MARKET_WEBSOCKET_FILE: {problem}" for problem in invalid.problems]
        except (OSError, UnicodeError) as error:
            return [f"MARKET_WEBSOCKET_FILE: cannot be read: {error}"]
        return []

    def _replay_problems(self) -> list[str]:
        if not self.market_replay_files:
            return ["MARKET_REPLAY_FILES: is not set, but MARKET_SOURCE has replay"]
        found: list[str] = []
        for path, symbol in self.replay_files():
            if symbol is not None and not is_symbol(symbol):
                found.append(f"MARKET_REPLAY_FILES: {symbol!r} is not a symbol")
            if not path.is_file():
                found.append(f"MARKET_REPLAY_FILES: there is no file {path}")
        return found
