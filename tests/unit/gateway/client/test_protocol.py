"""The Python client's protocol against the server's own definitions."""

import msgspec
import pytest

from realtime_client import protocol
from shared.protocol import client_frames, server_frames
from shared.protocol.close_codes import CloseCode


def wire_names(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def test_close_codes_match_server() -> None:
    assert {code.name: code.value for code in protocol.ServerClose}.items() <= {
        code.name: code.value for code in CloseCode
    }.items()


@pytest.mark.parametrize("channel", protocol.SUBSCRIPTIONS)
def test_subscription_has_fields_of_subscribe_frame(channel: str) -> None:
    assert wire_names(protocol.SUBSCRIPTIONS[channel]) == wire_names(client_frames.TARGETS[channel])


@pytest.mark.parametrize(
    ("ours", "servers"),
    [
        (protocol.Welcome, server_frames.AuthOkData),
        (protocol.Ack, server_frames.ChatAckData),
        (protocol.Rejection, server_frames.ErrorData),
    ],
)
def test_answers_read_only_fields_of_server_frames(ours: type[msgspec.Struct], servers: type[msgspec.Struct]) -> None:
    assert wire_names(ours) <= wire_names(servers)
