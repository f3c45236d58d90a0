"""Hand-made publish frames against the frames of pamqp."""

import pamqp.body
import pamqp.commands
import pamqp.frame
import pamqp.header
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.publish_frame import publish_frames

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(names, names, st.binary(max_size=5_000), st.lists(names, max_size=5), st.integers(1, 2047))
def test_frames_say_what_the_library_reads(exchange: str, key: str, body: bytes, cc: list[str], channel: int) -> None:
    data = publish_frames(channel, 1_000, exchange, key, body, cc)
    frames = []
    while data:
        size, number, frame = pamqp.frame.unmarshal(data)
        assert number == channel
        frames.append(frame)
        data = data[size:]
    publish, header, *bodies = frames
    assert isinstance(publish, pamqp.commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key) == (exchange, key)
    assert not publish.mandatory and not publish.immediate
    assert isinstance(header, pamqp.header.ContentHeader)
    assert header.body_size == len(body)
    assert header.properties.delivery_mode == 1
    assert (header.properties.headers or {}).get("CC", []) == cc
    parts = [part.value or b"" for part in bodies if isinstance(part, pamqp.body.ContentBody)]
    assert len(parts) == len(bodies)
    assert b"".join(parts) == body
    assert all(len(part) <= 1_000 - 8 for part in parts)
