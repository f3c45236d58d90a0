"""Broadcasts on the wire."""

import json

import msgspec

from shared.commands.broadcasts import HandedOver, ProfileUpdated, ReplicaBeat, decode_broadcast
from shared.encoding import to_json


def test_hand_over_keeps_its_key_on_the_wire() -> None:
    moved = HandedOver(partition=3, node="b", queue="chat.b.1", term=2)
    beat = ReplicaBeat(node="a", queue="chat.a.1", handed_over=(moved,))
    assert json.loads(to_json(beat))["given"] == [[3, "b", "chat.b.1", 2]]
    assert decode_broadcast(to_json(beat)) == beat


def test_stored_profile_keeps_its_tag_on_the_wire() -> None:
    line = to_json(ProfileUpdated(user_id="u", profile=msgspec.Raw(b"{}")))
    assert json.loads(line) == {"beat": "profile", "userId": "u", "profile": {}}
