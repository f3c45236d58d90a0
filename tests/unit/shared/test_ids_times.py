"""Ids that sort by time, and times on the wire."""

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.commands.chat_queries import GetRoom
from shared.commands.command import Caller, asked_at_ms
from shared.encoding import to_json
from shared.ids import Prefix, dated_id, derived_id, direct_room_id, made_at_ms, new_id
from shared.times import MILLISECONDS_PER_DAY, clock_problem, from_iso, now_ms, to_iso

ULID = r"[0-9A-HJKMNP-TV-Z]{26}"
YEAR_10000_MS = 253_402_300_800_000
moments = st.integers(0, YEAR_10000_MS - 1)
parts = st.lists(st.text(max_size=10), max_size=4)


@pytest.mark.parametrize("prefix", list(Prefix))
def test_id_is_prefix_and_ulid(prefix: Prefix) -> None:
    assert re.fullmatch(f"{prefix}_{ULID}", new_id(prefix))


def test_ids_of_one_process_increase_strictly() -> None:
    ids = [new_id(Prefix.MESSAGE) for _ in range(5_000)]
    assert ids == sorted(set(ids))


def test_ids_are_unique_across_threads() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def make(ids: list[str]) -> None:
        ids.extend(new_id(Prefix.ROOM) for _ in range(1_000))

    threads = [threading.Thread(target=make, args=(ids,)) for ids in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id_ for ids in made for id_ in ids}) == 4_000
    assert all(ids == sorted(ids) for ids in made)


def test_id_contains_its_time() -> None:
    before_ms = now_ms()
    made = new_id(Prefix.NODE)
    assert dated_id(Prefix.NODE, before_ms - 1) < made < dated_id(Prefix.NODE, now_ms() + 2)


@given(parts, parts)
def test_derived_id_depends_on_parts_only(one: list[str], other: list[str]) -> None:
    same = "\x00".join(one) == "\x00".join(other)
    assert (derived_id(Prefix.ROOM, *one) == derived_id(Prefix.ROOM, *other)) is same


@given(st.text(min_size=1), st.text(min_size=1))
def test_direct_room_id_is_symmetric(one: str, other: str) -> None:
    assert direct_room_id(one, other) == direct_room_id(other, one)
    assert re.fullmatch(f"room_{ULID}", direct_room_id(one, other))


def test_direct_room_id_differs_by_pair() -> None:
    assert direct_room_id("user_1", "user_2") != direct_room_id("user_1", "user_3")


@given(moments, moments, st.text())
def test_dated_ids_sort_by_their_time(one_ms: int, other_ms: int, part: str) -> None:
    one, other = dated_id(Prefix.NOTIFICATION, one_ms, part), dated_id(Prefix.NOTIFICATION, other_ms, part)
    assert (one < other) == (one_ms < other_ms)
    assert one == dated_id(Prefix.NOTIFICATION, one_ms, part)


def test_time_is_written_in_utc_with_milliseconds() -> None:
    assert to_iso(1_761_048_000_000) == "2025-10-21T12:00:00.000Z"
    assert to_iso(1_761_048_000_007) == "2025-10-21T12:00:00.007Z"
    assert to_iso(0) == "1970-01-01T00:00:00.000Z"
    assert to_iso(MILLISECONDS_PER_DAY - 1) == "1970-01-01T23:59:59.999Z"


@given(moments)
def test_time_survives_round_trip(at_ms: int) -> None:
    assert from_iso(to_iso(at_ms)) == at_ms


@given(moments, moments)
def test_written_times_sort_like_times(one_ms: int, other_ms: int) -> None:
    assert (to_iso(one_ms) < to_iso(other_ms)) == (one_ms < other_ms)


@pytest.mark.parametrize(
    "text", ["2025-10-21T14:00:00.000+02:00", "2025-10-21T12:00:00Z", "2025-10-21T12:00:00.000000Z"]
)
def test_offsets_and_precisions_are_parsed(text: str) -> None:
    assert from_iso(text) == 1_761_048_000_000


@pytest.mark.parametrize("text", ["2025-10-21T12:00:00", "2025-10-21", "", "soon", "2025-13-01T00:00:00Z"])
def test_invalid_time_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_iso(text)


@pytest.mark.parametrize("prefix", list(Prefix))
def test_made_at_ms_returns_creation_time(prefix: Prefix) -> None:
    before_ms = now_ms()
    assert before_ms <= made_at_ms(new_id(prefix)) <= now_ms() + 1


@given(moments)
def test_made_at_ms_returns_date_of_dated_id(at_ms: int) -> None:
    assert made_at_ms(dated_id(Prefix.ALERT, at_ms, "a")) == at_ms


@pytest.mark.parametrize("text", ["", "cmd", "cmd_", "cmd_01JAR", "cmd_!!!!!!!!!!!!"])
def test_made_at_ms_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        made_at_ms(text)


def test_asked_at_ms_returns_time_of_command() -> None:
    command = GetRoom(id=new_id(Prefix.COMMAND), deadline_ms=1, caller=Caller(user_id="u"), room_id="r")
    assert asked_at_ms(to_json(command)) == made_at_ms(command.id)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"id":"cmd_01JAR3NDEKTSV4RRFFQ69G5FAV"}', b'{"op":"room","id":"cmd_short"}']
)
def test_asked_at_ms_ignores_other_lines(line: bytes) -> None:
    assert asked_at_ms(line) is None


def test_skewed_clock_is_a_problem_beyond_two_seconds() -> None:
    assert clock_problem(2_000) is clock_problem(-2_000) is None
    assert clock_problem(2_100) == "clock: the host is -2.1 s off the database server"
    assert clock_problem(-2_100) == "clock: the host is +2.1 s off the database server"
