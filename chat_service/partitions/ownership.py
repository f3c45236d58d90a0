"""Ownership of partitions: the conclusions of one chat_service replica from the heartbeats of all. Pure.

Ownership only routes: two owners of a partition at once are safe (see `log`), so a wrong conclusion costs at worst a
refused commit. `partition_owners` holds the truth, changed by compare-and-set alone.

    silent for 0.5 s ────> its queue is probed ──> gone: claimed at once (exclusive queues die with their connection)
                                               └─> exists: frozen or slow; claimed once its lease is over
    another live replica is preferred (rendezvous hashing) ──> handed over

The first live replica by rendezvous hash acts for a partition, so that only one replica claims it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from chat_service.partitions.rendezvous import preferred_node, share_of

BEAT_MS = 200
SILENT_MS = 500  # a replica is silent once it has missed two heartbeats and half the time of a third
STEADY_AFTER_MS = 1_000  # partitions move to a new replica only after this time, since it may vanish again
PROBE_AGAIN_MS = 500


class OwnerRecord(NamedTuple):
    """The record of a partition's owner. Without `queue` the partition is orphaned.

    `node` is empty if it never had an owner, or if the last one left without a successor.
    """

    node: str
    queue: str
    term: int

    def orphaned(self) -> Self:
        """Return the record of an owner whose queue is gone: any replica may claim the partition."""
        return self._replace(queue="")


NO_OWNER = OwnerRecord("", "", 0)


class Claim(NamedTuple):
    """Try to become the owner of a partition whose record is still `seen`."""

    partition: int
    seen: OwnerRecord


class Probe(NamedTuple):
    """Check whether a silent replica's queue still exists; if so, whether its lease is over."""

    node: str
    queue: str


class HandOver(NamedTuple):
    """Give up a partition and make another live replica its owner."""

    partition: int
    node: str
    queue: str


Action = Claim | Probe | HandOver


@dataclass(slots=True)
class _Peer:
    queue: str
    first_heard_ms: int
    heard_ms: int
    is_gone: bool = False
    probed_ms: int = -PROBE_AGAIN_MS


@dataclass(slots=True)
class ReplicaView:
    """The view of one replica, `node`, whose queue is `queue`. Times are milliseconds of its own monotonic clock.

    A partition is orphaned if no live replica has the queue in its record, even if the node is live: after a lost
    connection a process has a new queue and none of its old partitions.
    """

    node: str
    queue: str
    partitions: int
    started_ms: int
    owners: dict[int, OwnerRecord] = field(default_factory=dict)
    _peers: dict[str, _Peer] = field(default_factory=dict)

    def beat(self, node: str, queue: str, terms: Mapping[int, int], now_ms: int) -> None:
        """Process the heartbeat of another replica: its queue, and its terms by partition."""
        peer = self._peers.get(node)
        if peer is None or peer.queue != queue:
            peer = self._peers[node] = _Peer(queue, now_ms, now_ms)
        peer.heard_ms, peer.is_gone = now_ms, False
        for partition, term in terms.items():
            self.learn(partition, OwnerRecord(node, queue, term))

    def learn(self, partition: int, owner: OwnerRecord) -> None:
        """Note an owner, unless one with a newer term is known."""
        if owner.term > self.owners.get(partition, NO_OWNER).term:
            self.owners[partition] = owner

    def note_leaving(self, node: str) -> None:
        """Note that a replica is stopping."""
        if (peer := self._peers.get(node)) is not None:
            peer.is_gone = True

    def note_queue_gone(self, queue: str) -> None:
        """Note that a queue no longer exists, or that the lease of its replica is over: its partitions are orphaned."""
        for peer in self._peers.values():
            if peer.queue == queue:
                peer.is_gone = True
        for partition, owner in self.owners.items():
            if owner.queue == queue:
                self.owners[partition] = owner.orphaned()

    def live_nodes(self, now_ms: int) -> list[str]:
        """Return the live replicas, this one included, in the order of their ids."""
        others = (node for node, peer in self._peers.items() if self._is_live(peer, now_ms))
        return sorted([self.node, *others])

    def queue_of(self, node: str) -> str | None:
        """Return the last known queue of another replica; None for an unknown one and for one that is gone."""
        peer = self._peers.get(node)
        return None if peer is None or peer.is_gone else peer.queue

    def share(self, now_ms: int) -> set[int]:
        """Return the partitions that this replica should own among the live replicas."""
        return share_of(self.node, range(self.partitions), self.live_nodes(now_ms))

    def successor_of(self, partition: int, now_ms: int) -> str | None:
        """Return the preferred node among the other live replicas, to take over a partition; None if there is none."""
        return preferred_node(str(partition), [node for node in self.live_nodes(now_ms) if node != self.node])

    def ms_until_silent(self, now_ms: int) -> int:
        """Return the time until the first live replica counts as silent, unless it sends a heartbeat."""
        heard = (peer.heard_ms for peer in self._peers.values() if self._is_live(peer, now_ms))
        return min((heard_ms + SILENT_MS - now_ms for heard_ms in heard), default=SILENT_MS)

    def actions(self, now_ms: int) -> list[Action]:
        """Return the actions that are due now."""
        if now_ms - self.started_ms < SILENT_MS:
            return []  # other replicas may be live whose first heartbeat has not arrived
        live = self.live_nodes(now_ms)
        queues = {self.queue, *(self._peers[node].queue for node in live if node != self.node)}
        actions: list[Action] = []
        for partition in range(self.partitions):
            seen = self.owners.get(partition, NO_OWNER)
            first = preferred_node(str(partition), live)
            if first == self.node and seen.queue not in queues:
                is_surely_orphaned = not seen.queue or seen.node in live
                actions.append(Claim(partition, seen) if is_surely_orphaned else Probe(seen.node, seen.queue))
            elif seen.queue == self.queue and first is not None and self._is_steady_peer(first, now_ms):
                actions.append(HandOver(partition, first, self._peers[first].queue))
        return self._without_repeats(actions, now_ms)

    def _without_repeats(self, actions: list[Action], now_ms: int) -> list[Action]:
        """Probe each queue once, and not again for half a second."""
        kept: list[Action] = []
        for action in actions:
            if isinstance(action, Probe):
                peer = self._peers.setdefault(action.node, _Peer(action.queue, now_ms, now_ms - SILENT_MS))
                if now_ms - peer.probed_ms < PROBE_AGAIN_MS:
                    continue
                peer.probed_ms = now_ms
            kept.append(action)
        return kept

    def _is_live(self, peer: _Peer, now_ms: int) -> bool:
        return not peer.is_gone and now_ms - peer.heard_ms < SILENT_MS

    def _is_steady_peer(self, node: str, now_ms: int) -> bool:
        return node != self.node and now_ms - self._peers[node].first_heard_ms >= STEADY_AFTER_MS
