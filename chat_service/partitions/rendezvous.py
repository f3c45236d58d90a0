"""The assignment of keys to nodes: rendezvous hashing (highest random weight). Pure.

When a node joins or leaves, only its own share moves. Every replica computes the same from the same list of live nodes.
"""

from collections.abc import Collection
from hashlib import blake2b


def preferred_node(key: str, node_ids: Collection[str]) -> str | None:
    """Return the node preferred for `key`; None without nodes. Only a claim makes it the owner."""
    return max(node_ids, key=lambda node_id: _weight(key, node_id), default=None)


def share_of(node_id: str, keys: Collection[int], node_ids: Collection[str]) -> set[int]:
    """Return the keys for which `node_id` is preferred."""
    return {key for key in keys if preferred_node(str(key), node_ids) == node_id}


def _weight(key: str, node_id: str) -> bytes:
    return blake2b(f"{key}\x00{node_id}".encode(), digest_size=8).digest()
