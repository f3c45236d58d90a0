"""The small pure parts: deduplication, lease, simulated walk, settings."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_feed.dedup import ProcessedFilter, SeenWindow
from market_feed.lease import BEAT_S, DOUBT_S, LOOK_S, TERMS_SKIPPED, Lease, LeaseMonitor, LeaseState
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
            window.may_forget(window.added)
    assert len(window) == min(len(fresh), size)
    assert all(key in window for key in fresh[-size:])
    assert window.last_forgotten_number == window.added - len(window)


@given(st.integers(0, 30), st.integers(0, 30))
def test_window_forgets_no_key_that_is_not_on_disk(added: int, on_disk: int) -> None:
    window = SeenWindow(5)
    keys = [short_event_key("/s", str(number)) for number in range(added)]
    window.load(keys)
    window.may_forget(on_disk)
    assert all(key in window for key in keys[on_disk:])
    assert window.last_forgotten_number == max(min(on_disk, added - 5), 0)


def test_filter_holds_every_key_of_eight_days() -> None:
    processed = ProcessedFilter()
    keys = {(day, number): short_event_key(f"/{day}", str(number)) for day in range(12) for number in range(200)}
    for (day, _), key in keys.items():
        processed.add(key, day)
    assert processed.may_hold(b"anything")
    processed.is_complete = True
    assert all(processed.may_hold(key) for (day, _), key in keys.items() if day >= 3)
    forgotten = [key for (day, _), key in keys.items() if day < 3]
    assert not any(processed.may_hold(key) for key in forgotten)


def held(age_s: float | None, *, beat: int = 4, queue: str | None = "life.1") -> Lease:
    return Lease(term=1, beat=beat, holder="node_1", queue=queue, age_s=age_s)


def test_takeover_takes_next_term() -> None:
    assert Lease().next_term("gen_1") == 1
    assert Lease(term=7, generation="gen_1").next_term("gen_1") == 8


@pytest.mark.parametrize("generation", ["gen_1", None])
def test_takeover_after_restore_skips_terms(generation: str | None) -> None:
    assert Lease(term=7, generation=generation).next_term("gen_2") == 7 + TERMS_SKIPPED


def test_lease_without_holder_is_free() -> None:
    assert LeaseMonitor(5.0).judge(Lease(), 0.0) is LeaseState.FREE
    assert LeaseMonitor(5.0).judge(Lease(term=3, beat=9, age_s=0.1), 0.0) is LeaseState.FREE


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        (0.0, LeaseState.HELD),
        (0.99, LeaseState.HELD),
        (1.0, LeaseState.DOUBTED),
        (4.99, LeaseState.DOUBTED),
        (5.0, LeaseState.FREE),
    ],
)
def test_first_look_judges_by_stamp(age_s: float, state: LeaseState) -> None:
    watch = LeaseMonitor(5.0)
    assert watch.judge(held(age_s), 1000.0) is state
    assert watch.owner_lives is (state is not LeaseState.FREE)


@given(st.floats(0, 20), st.floats(0, 1e6))
def test_next_look_comes_when_doubt_would_begin(age_s: float, now_s: float) -> None:
    watch = LeaseMonitor(5.0)
    watch.judge(held(age_s), now_s)
    assert 0 < watch.look_again_s <= BEAT_S
    assert age_s + watch.look_again_s <= max(DOUBT_S, age_s) + LOOK_S


def test_beat_without_stamp_counts_from_when_it_was_seen() -> None:
    watch = LeaseMonitor(5.0)
    assert watch.judge(held(None, queue=None), 100.0) is LeaseState.HELD
    assert watch.judge(held(None, queue=None), 104.9) is LeaseState.DOUBTED
    assert watch.judge(held(None, beat=5, queue=None), 104.9) is LeaseState.HELD
    assert watch.judge(held(None, beat=5, queue=None), 109.9) is LeaseState.FREE


def test_owner_has_time_for_a_beat_after_outage_of_database() -> None:
    watch = LeaseMonitor(5.0)
    watch.unreadable()
    assert watch.judge(held(60.0), 100.0) is LeaseState.HELD
    assert watch.judge(held(60.9), 100.9) is LeaseState.HELD
    assert watch.judge(held(61.0), 101.0) is LeaseState.FREE
    watch.unreadable()
    assert watch.judge(held(70.0), 110.0) is LeaseState.HELD
    assert watch.judge(held(0.2, beat=5), 110.5) is LeaseState.HELD
    assert watch.judge(Lease(term=1, beat=5, age_s=0.5), 110.6) is LeaseState.FREE


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
