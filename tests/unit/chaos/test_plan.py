"""The plan of faults: bounded and determined by the seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plan import EVERYTHING, REPLICAS, SERVICES, Choice, Kind, count_by_kind, make_plan


@given(st.integers(), st.integers(0, 300))
def test_seed_determines_plan(seed: int, count: int) -> None:
    plan = make_plan(seed, count)
    assert plan == make_plan(seed, count)
    assert [fault.number for fault in plan] == list(range(1, count + 1))
    assert sum(count_by_kind(plan).values()) == count


def test_seeds_give_different_plans() -> None:
    assert len({tuple(make_plan(seed, 20)) for seed in range(50)}) == 50


@given(st.integers())
def test_every_kind_occurs_if_count_allows(seed: int) -> None:
    assert {fault.kind for fault in make_plan(seed, len(EVERYTHING))} == set(Kind)


@given(st.integers())
def test_faults_are_bounded_and_target_existing_processes(seed: int) -> None:
    processes = {f"{service}-{number}" for service in SERVICES for number in range(1, REPLICAS + 1)}
    for fault in make_plan(seed, 100):
        assert 1.5 <= fault.pause_s <= 5.0
        assert 0.0 <= fault.hold_s <= 15.0
        assert (fault.target in processes) == (fault.kind in {Kind.KILL, Kind.TERM, Kind.FREEZE})


def test_choices_restrict_plan() -> None:
    plan = make_plan(1, 10, [Choice.parse("kill:chat_service")])
    assert count_by_kind(plan) == {"kill chat_service": 10}


@pytest.mark.parametrize("text", ["explode", "kill:nobody", "broker-kill:gateway", ""])
def test_unknown_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Choice.parse(text)
