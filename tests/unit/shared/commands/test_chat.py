"""Room commands on the wire."""

import json

from shared.commands.chat import JoinRoom
from shared.commands.command import Caller
from shared.encoding import to_json


def test_expiry_of_a_room_command_keeps_its_key_on_the_wire() -> None:
    command = JoinRoom(id="cmd_1", caller=Caller(user_id="u"), room_id="r", expires_at_monotonic_ms=7)
    assert json.loads(to_json(command))["lifeEndsMs"] == 7
