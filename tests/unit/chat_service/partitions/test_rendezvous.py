"""The assignment of partitions by rendezvous hashing."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from chat_service.partitions.rendezvous import preferred_node, share_of
from shared.bus.topology import PARTITIONS

ALL = range(PARTITIONS)
nodes = st.sets(st.text(min_size=1, max_size=30), min_size=1, max_size=8)


@given(nodes)
def test_every_partition_has_exactly_one_owner(node_ids: set[str]) -> None:
    shares = [share_of(node_id, ALL, node_ids) for node_id in node_ids]
    assert sorted(key for share in shares for key in share) == list(ALL)


@given(nodes, st.randoms())
def test_assignment_is_independent_of_node_order(node_ids: set[str], random: Random) -> None:
    shuffled = list(node_ids)
    random.shuffle(shuffled)
    assert [preferred_node(str(key), shuffled) for key in ALL] == [
        preferred_node(str(key), sorted(node_ids)) for key in ALL
    ]


@given(nodes, st.text(min_size=1, max_size=30))
def test_joining_node_moves_only_its_share(node_ids: set[str], newcomer: str) -> None:
    before = {key: preferred_node(str(key), node_ids - {newcomer}) for key in ALL}
    after = {key: preferred_node(str(key), node_ids | {newcomer}) for key in ALL}
    assert all(after[key] in (before[key], newcomer) for key in ALL)


@given(nodes)
def test_leaving_node_moves_only_its_share(node_ids: set[str]) -> None:
    gone, *_ = sorted(node_ids)
    left = node_ids - {gone}
    for node_id in left:
        assert share_of(node_id, ALL, node_ids) <= share_of(node_id, ALL, left)


def test_keys_are_spread_evenly() -> None:
    node_ids = [f"node_{number}" for number in range(4)]
    shares = [len(share_of(node_id, range(4_000), node_ids)) for node_id in node_ids]
    assert sum(shares) == 4_000
    assert all(850 < share < 1_150 for share in shares)


def test_key_without_nodes_has_no_owner() -> None:
    assert preferred_node("1", []) is None
    assert share_of("node_1", ALL, []) == set()


def test_assignment_is_stable_over_versions() -> None:
    node_ids = ["node_a", "node_b", "node_c"]
    assert "".join(str(preferred_node(str(key), node_ids))[-1] for key in range(12)) == "aaccbbaacbac"
