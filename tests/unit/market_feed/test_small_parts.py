"""The small pure parts: deduplication, lease, simulated walk, settings."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_feed.dedup import SeenWindow
from market_feed.lease import Lease, LeaseMonitor
from market_feed.settings import MarketSettings, ReplayFile, SourceKind
from market_feed.sources.sim import INSTRUMENTS, Walk, instrument_of
from shared.bus.events import short_event_key
from shared.errors import SettingsInvalid
from shared.process.settings import load

URLS = {"AMQP_URL": "amqp://broker/", "MONGODB_URI": "mongodb://database/"}


def test_window_detects_seen_keys() -> None:
    window = SeenWindow(10)
    assert window.add(short_event_key("/s", "1"))
    assert not window.add(short_event_key("/s", "1"))
    assert window.add(short_event_key("/t", "1"))


@given(st.lists(st.binary(min_size=1, max_size=1), max_size=60), st.integers(1, 8))
def test_window_keeps_newest_keys(keys: list[bytes], size: int) -> None:
    window = SeenWindow(size)
    fresh: list[bytes] = []
    for key in keys:
        if window.add(key):
            fresh.append(key)
    assert len(window) == min(len(fresh), size)
    assert all(key in window for key in fresh[-size:])


def test_free_lease_can_be_taken_at_once() -> None:
    assert LeaseMonitor(5.0).may_take(Lease(), 0.0)
    assert LeaseMonitor(5.0).may_take(Lease(term=3, beat=9), 0.0)


def test_held_lease_can_be_taken_after_its_length_without_beat() -> None:
    watch = LeaseMonitor(5.0)
    held = Lease(term=1, beat=4, holder="node_1")
    assert not watch.may_take(held, 100.0)
    assert not watch.may_take(held, 104.9)
    assert watch.may_take(held, 105.0)


def test_beat_restarts_wait_and_shows_live_owner() -> None:
    watch = LeaseMonitor(5.0)
    assert not watch.may_take(Lease(1, 4, "node_1"), 100.0)
    assert not watch.owner_lives
    assert not watch.may_take(Lease(1, 5, "node_1"), 104.0)
    assert watch.owner_lives
    assert not watch.may_take(Lease(1, 5, "node_1"), 108.9)
    assert watch.may_take(Lease(1, 5, "node_1"), 109.0)
    assert not watch.owner_lives


def test_walk_is_deterministic_per_seed() -> None:
    first, second, other = (Walk(INSTRUMENTS[0], seed, 1.1) for seed in (1, 1, 2))
    ticks = first.step(5.0, 10.0, 0)
    assert ticks == second.step(5.0, 10.0, 0)
    assert ticks != other.step(5.0, 10.0, 0)


def test_walk_stays_near_level() -> None:
    for instrument in INSTRUMENTS:
        for tick in Walk(instrument, 7, instrument.level).step(1000.0, 2.0, 5):
            assert tick.symbol == instrument.symbol
            assert tick.price == pytest.approx(instrument.level, rel=0.05)
            assert tick.price == round(tick.price, instrument.digits)
            assert tick.bid is not None and tick.ask is not None
            assert tick.bid <= tick.price <= tick.ask


def test_unknown_symbol_can_be_simulated() -> None:
    (tick,) = Walk(instrument_of("FOO/BAR"), 1, 100.0).step(1.0, 1.0, 5)[:1]
    assert tick.symbol == "FOO/BAR"


def settings(**environment: str) -> MarketSettings:
    return load(MarketSettings, {**URLS, **environment})


def test_default_source_is_simulation() -> None:
    assert settings().market_source == (SourceKind.SIM,)


def test_several_sources_and_files_are_parsed(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    loaded = settings(
        MARKET_SOURCE="sim, replay",
        MARKET_REPLAY_FILES=f"EUR/USD={tmp_path}/a.csv,{tmp_path}/b.csv",
        MARKET_REPLAY_SPEED="60",
    )
    assert loaded.market_source == (SourceKind.SIM, SourceKind.REPLAY)
    assert loaded.replay_files() == [ReplayFile(tmp_path / "a.csv", "EUR/USD"), ReplayFile(tmp_path / "b.csv", None)]
    assert loaded.market_replay_speed == 60.0
    assert settings(MARKET_REPLAY_SPEED="full").market_replay_speed == "full"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"MARKET_SOURCE": "nasdaq"}, "MARKET_SOURCE"),
        ({"MARKET_SYMBOLS": "EUR/USD,A B"}, "MARKET_SYMBOLS"),
        ({"MARKET_SOURCE": "replay"}, "MARKET_REPLAY_FILES"),
        ({"MARKET_SOURCE": "replay", "MARKET_REPLAY_FILES": "X=/nowhere.csv"}, "MARKET_REPLAY_FILES"),
        ({"MARKET_SOURCE": "websocket"}, "MARKET_WEBSOCKET_FILE"),
        ({"MARKET_SOURCE": "websocket", "MARKET_WEBSOCKET_FILE": "/nowhere.toml"}, "MARKET_WEBSOCKET_FILE"),
        ({"MARKET_REPLAY_SPEED": "0"}, "MARKET_REPLAY_SPEED"),
        ({"MARKET_TICK_TTL_S": "5"}, "MARKET_TICK_TTL_S"),
    ],
)
def test_wrong_setting_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        settings(**wrong)
    assert caught.value.problems[0].startswith(named)
