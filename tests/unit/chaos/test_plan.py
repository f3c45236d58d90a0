"""The plan of faults: bounded and determined by the seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plan import (
    EVERYTHING,
    EVERYTHING_ON_CLUSTER,
    NODES,
    OF_CLUSTER,
    OF_SINGLE_BROKER,
    REPLICAS,
    SERVICES,
    Choice,
    Kind,
    count_by_kind,
    make_plan,
)

OF_PROCESS = {Kind.KILL, Kind.TERM, Kind.FREEZE, Kind.SKEW}


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
    assert {fault.kind for fault in make_plan(seed, len(EVERYTHING))} == set(Kind) - OF_CLUSTER
    on_cluster = make_plan(seed, len(EVERYTHING_ON_CLUSTER), EVERYTHING_ON_CLUSTER)
    assert {fault.kind for fault in on_cluster} == set(Kind) - OF_SINGLE_BROKER


@given(st.integers(), st.integers(0, len(EVERYTHING)))
def test_no_kind_occurs_twice_in_a_short_plan(seed: int, count: int) -> None:
    assert len({fault.kind for fault in make_plan(seed, count)}) == count


def test_every_kind_occurs_in_some_short_plan() -> None:
    assert {fault.kind for seed in range(50) for fault in make_plan(seed, 10)} == set(Kind) - OF_CLUSTER


@given(st.integers())
def test_faults_are_bounded_and_target_existing_processes(seed: int) -> None:
    processes = {f"{service}-{number}" for service in SERVICES for number in range(1, REPLICAS + 1)}
    nodes = {f"node-{number}" for number in range(1, NODES + 1)}
    for fault in (*make_plan(seed, 100), *make_plan(seed, 100, EVERYTHING_ON_CLUSTER)):
        assert 1.5 <= fault.pause_s <= 5.0
        assert 0.0 <= fault.hold_s <= 15.0
        assert (fault.target in processes) == (fault.kind in OF_PROCESS)
        assert (fault.target in nodes) == (fault.kind in OF_CLUSTER)


def test_choices_restrict_plan() -> None:
    plan = make_plan(1, 10, [Choice.parse("kill:chat_service")])
    assert count_by_kind(plan) == {"kill chat_service": 10}


@pytest.mark.parametrize("text", ["explode", "kill:nobody", "broker-kill:gateway", ""])
def test_unknown_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Choice.parse(text)
