"""Ages of bodies, for any clocks of gateway and owner."""

from hypothesis import given
from hypothesis import strategies as st

from chat_service.partitions.command_age import BUCKET_MS, BUCKETS, GATEWAYS_MAX, CommandAges


@given(st.integers(-(10**9), 10**9), st.integers(0, 100), st.integers(0, 60_000))
def test_age_is_transit_time_beyond_the_quickest_stamp(offset_ms: int, quickest_ms: int, transit_ms: int) -> None:
    ages = CommandAges()
    ages.note("g", 1_000, 1_000 + offset_ms + quickest_ms)
    ages.note("g", 2_000, 2_000 + offset_ms + quickest_ms + 500)
    arrived_ms = 3_000 + offset_ms + quickest_ms + transit_ms
    if transit_ms < BUCKET_MS:
        assert ages.age_ms("g", 3_000, arrived_ms) == transit_ms


def test_age_is_unknown_without_a_recent_stamp() -> None:
    ages = CommandAges()
    assert ages.age_ms("g", 0, 0) is None
    ages.note("g", 0, 0)
    assert ages.age_ms("g", 0, BUCKET_MS * (BUCKETS - 1)) is not None
    assert ages.age_ms("g", 0, BUCKET_MS * (BUCKETS + 1)) is None


def test_delayed_stamp_does_not_make_a_delayed_body_young() -> None:
    ages = CommandAges()
    ages.note("g", 0, 10)
    ages.note("g", 1_000, 6_010)
    assert ages.age_ms("g", 1_000, 6_010) == 5_000


def test_longest_silent_gateway_is_forgotten() -> None:
    ages = CommandAges()
    for number in range(GATEWAYS_MAX + 1):
        ages.note(f"g{number}", 0, 0)
    assert ages.age_ms("g0", 0, 0) is None
    assert ages.age_ms("g1", 0, 0) == 0
