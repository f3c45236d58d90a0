"""The search for the highest rate that a server sustains."""

import pytest

from tests.bench.saturation import CONFIRMATIONS_MAX, STEP, SaturationSearch


class LimitedServer:
    """A server that sustains `limit` messages per second, and a clock that trials advance."""

    def __init__(self, limit: float, sustained: float | None = None) -> None:
        self.limit = limit
        self.sustained = limit if sustained is None else sustained
        self.now_s = 0.0

    def holds(self, rate: float, seconds: float) -> bool:
        self.now_s += seconds + 5.0
        return rate <= (self.limit if seconds < 30.0 else self.sustained)

    def search(self, budget_s: float = 1_000.0) -> SaturationSearch:
        return SaturationSearch(self.holds, lambda: self.now_s, budget_s, 30.0)


@pytest.mark.parametrize("limit", [7.0, 130.0, 900.0, 3_333.0, 9_000.0])
def test_search_finds_limit_within_a_step(limit: float) -> None:
    found = LimitedServer(limit).search().run(500.0, 16_000.0)
    assert limit / STEP <= found <= limit


def test_search_ends_at_highest_rate() -> None:
    assert LimitedServer(1e9).search().run(500.0, 16_000.0) == 16_000.0


def test_server_that_sustains_nothing_has_no_rate() -> None:
    assert LimitedServer(0.0).search().run(500.0, 16_000.0) == 0.0


def test_short_probes_are_confirmed_over_full_time() -> None:
    found = LimitedServer(1_000.0, sustained=900.0).search().run(500.0, 16_000.0)
    assert 900.0 / STEP <= found <= 900.0


def test_search_stays_within_its_budget() -> None:
    server = LimitedServer(3_333.0)
    server.search(budget_s=60.0).run(500.0, 16_000.0)
    assert server.now_s <= 60.0 + CONFIRMATIONS_MAX * 35.0
