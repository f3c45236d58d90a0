"""The conclusions of one replica from the beats of all."""

from chat_service.partitions.ownership import (
    BEAT_MS,
    NO_OWNER,
    PROBE_AGAIN_MS,
    SILENT_MS,
    STEADY_AFTER_MS,
    Claim,
    HandOver,
    OwnerRecord,
    Probe,
    ReplicaView,
)
from chat_service.partitions.rendezvous import share_of

PARTITIONS = 16
ME, OTHER, THIRD = "node_me", "node_other", "node_third"


def replicas(queue: str = "chat.me.1") -> ReplicaView:
    return ReplicaView(ME, queue, PARTITIONS, 0)


def owning(view: ReplicaView, term: int = 1) -> ReplicaView:
    """Own every partition."""
    for partition in range(PARTITIONS):
        view.learn(partition, OwnerRecord(ME, view.queue, term))
    return view


def test_nothing_is_claimed_before_others_could_be_heard() -> None:
    assert replicas().actions(SILENT_MS - 1) == []


def test_single_replica_claims_partitions_without_owner() -> None:
    assert replicas().actions(SILENT_MS) == [Claim(partition, NO_OWNER) for partition in range(PARTITIONS)]


def test_owner_claims_nothing_again() -> None:
    assert owning(replicas()).actions(SILENT_MS) == []


def test_partitions_are_handed_to_a_steady_newcomer_that_fits_better() -> None:
    view = owning(replicas())
    theirs = share_of(OTHER, range(PARTITIONS), [ME, OTHER])
    view.beat(OTHER, "chat.other.1", {}, 10_000)
    assert view.actions(10_000) == []
    for at_ms in range(10_000, 10_001 + STEADY_AFTER_MS, BEAT_MS):
        view.beat(OTHER, "chat.other.1", {}, at_ms)
    actions = view.actions(10_000 + STEADY_AFTER_MS)
    assert {(action.partition, action.queue) for action in actions if isinstance(action, HandOver)} == {
        (partition, "chat.other.1") for partition in theirs
    }
    assert len(actions) == len(theirs)


def test_silent_owner_is_probed_once_and_claimed_when_its_queue_is_gone() -> None:
    view = replicas()
    view.beat(OTHER, "chat.other.1", dict.fromkeys(range(PARTITIONS), 3), 1_000)
    assert view.actions(1_000 + SILENT_MS - 1) == []
    silent_ms = 1_000 + SILENT_MS
    assert view.actions(silent_ms) == [Probe(OTHER, "chat.other.1")]
    assert view.actions(silent_ms + 1) == []
    assert view.actions(silent_ms + PROBE_AGAIN_MS) == [Probe(OTHER, "chat.other.1")]
    view.note_queue_gone("chat.other.1")
    assert view.actions(silent_ms + PROBE_AGAIN_MS) == [
        Claim(partition, OwnerRecord(OTHER, "", 3)) for partition in range(PARTITIONS)
    ]


def test_only_the_first_living_replica_acts_for_a_silent_one() -> None:
    views = [ReplicaView(node, f"chat.{node}", PARTITIONS, 0) for node in (ME, THIRD)]
    for view, peer in zip(views, (THIRD, ME), strict=True):
        view.beat(OTHER, "chat.other.1", dict.fromkeys(range(PARTITIONS), 1), 0)
        view.note_queue_gone("chat.other.1")
        view.beat(peer, f"chat.{peer}", {}, 10_000)
    claimed = [{action.partition for action in view.actions(10_000) if isinstance(action, Claim)} for view in views]
    assert claimed[0] | claimed[1] == set(range(PARTITIONS))
    assert not claimed[0] & claimed[1]


def test_process_with_a_new_queue_claims_its_old_partitions_anew() -> None:
    view = owning(replicas("chat.me.1"))
    view.queue = "chat.me.2"
    assert view.actions(SILENT_MS) == [
        Claim(partition, OwnerRecord(ME, "chat.me.1", 1)) for partition in range(PARTITIONS)
    ]


def test_partitions_of_a_living_replica_with_a_new_queue_are_claimed_without_a_probe() -> None:
    view = replicas()
    view.beat(OTHER, "chat.other.1", dict.fromkeys(range(PARTITIONS), 1), 1_000)
    view.beat(OTHER, "chat.other.2", {}, 2_000)
    claims = view.actions(2_000)
    mine = share_of(ME, range(PARTITIONS), [ME, OTHER])
    assert {claim.partition for claim in claims if isinstance(claim, Claim)} == mine
    assert len(claims) == len(mine)


def test_older_term_changes_nothing() -> None:
    view = owning(replicas(), term=5)
    view.beat(OTHER, "chat.other.1", dict.fromkeys(range(PARTITIONS), 4), 1_000)
    assert all(view.owners[partition].node == ME for partition in range(PARTITIONS))


def test_replica_that_leaves_is_not_waited_for() -> None:
    view = replicas()
    view.beat(OTHER, "chat.other.1", {}, 1_000)
    assert view.live_nodes(1_000) == [ME, OTHER]
    view.note_leaving(OTHER)
    assert view.live_nodes(1_000) == [ME]
    assert view.successor_of(0, 1_000) is None


def test_silence_of_a_replica_is_foreseen() -> None:
    replicas = ReplicaView("a", "chat.a.1", 2, 0)
    assert replicas.ms_until_silent(0) == SILENT_MS
    replicas.beat("b", "chat.b.1", {}, 100)
    replicas.beat("c", "chat.c.1", {}, 200)
    assert replicas.ms_until_silent(300) == SILENT_MS - 200
    replicas.note_leaving("b")
    assert replicas.ms_until_silent(300) == SILENT_MS - 100
    assert replicas.ms_until_silent(200 + SILENT_MS) == SILENT_MS  # it counts as silent by now
