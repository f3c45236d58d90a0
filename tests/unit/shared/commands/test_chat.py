"""Commands and replies of chat_service on the wire."""

import json

from shared.commands.chat import JoinRoom
from shared.commands.chat_queries import DirectMessagePosition, DirectRoom, ListRecentDirectMessages
from shared.commands.command import Caller
from shared.encoding import to_json


def test_expiry_of_a_room_command_keeps_its_key_on_the_wire() -> None:
    command = JoinRoom(id="cmd_1", caller=Caller(user_id="u"), room_id="r", expires_at_monotonic_ms=7)
    assert json.loads(to_json(command))["lifeEndsMs"] == 7


def test_recent_direct_messages_keep_their_keys_on_the_wire() -> None:
    query = ListRecentDirectMessages(id="cmd_1", caller=Caller(user_id="u"), deadline_ms=1, user_ids=("u",), since_ms=2)
    assert json.loads(to_json(query))["op"] == "directs"
    position = DirectMessagePosition(rev=3, created_at_ms=4)
    room = DirectRoom(room_id="r", user_ids=("u", "v"), positions=(position,))
    assert json.loads(to_json(room)) == {"roomId": "r", "userIds": ["u", "v"], "posts": [[3, 4]]}
