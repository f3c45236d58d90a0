"""The command line: arguments, output and settings."""

import json
from pathlib import Path

import pytest

from gateway.cli import show
from gateway.cli.arguments import parse
from gateway.cli.settings import CliSettings
from gateway.cli.tail import TailTarget, interests
from shared.errors import SettingsInvalid
from shared.process.settings import load, read_env_file


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["send", "room_1"], "TEXT"),
        (["rooms", "--limit", "0"], "--limit"),
        (["dead", "replay"], "--all --number"),
        (["dead", "replay", "--all", "--number", "1"], "--all"),
        (["token"], "USER"),
    ],
)
def test_invalid_usage_prints_one_line_and_exits_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(arguments)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("realtime: ")
    assert expected in err


def test_targets_are_rooms_or_symbols() -> None:
    assert interests(["room_1", "EUR/USD", "BTC"], ["c1"], notifications=True) == [
        TailTarget("chatroom", {"chatroom_id": "room_1"}),
        TailTarget("market", {"symbols": ["EUR/USD", "BTC"], "max_rate": 10.0}),
        TailTarget("community", {"community_id": "c1"}),
        TailTarget("notifications", {}),
    ]
    assert interests([], [], notifications=False) == []


@pytest.mark.parametrize("evil", ["\x1b[31mred", "a\nb", "\x9b31m", "\u202eabc", "\x07", "\ud800"])
def test_control_characters_of_users_are_replaced(evil: str) -> None:
    data = {"timestamp": "t", "seq": 1, "userId": "u", "message": evil, "user": {"firstName": evil, "lastName": ""}}
    shown = [
        show.event("chat:message", data),
        show.event("post:created", {"content": evil}),
        *show.table(("A",), [[evil]]).split("\n", 1)[1:],
        show.as_json({"message": evil}),
    ]
    for line in shown:
        assert not set(line) & {"\x1b", "\n", "\x9b", "\x07"}
        line.encode()
    assert not set("".join(shown[:3])) & {"\u202e"}
    assert json.loads(shown[3]) == {"message": evil}


def test_table_columns_fit_their_widest_cell() -> None:
    assert show.table(("A", "B"), [["long", 1], ["x", "last"]]) == "A     B\nlong  1\nx     last"


def test_environment_overrides_run_file(tmp_path: Path) -> None:
    path = tmp_path / "run.env"
    assert read_env_file(path) == {}
    path.write_text("GATEWAY_URL=http://here:1\nJWT_SECRET=a=b\nOTHER=x\n")
    settings = load(CliSettings, {"GATEWAY_URL": "http://there:2"}, fallback=read_env_file(path))
    assert (settings.gateway_url, settings.jwt_secret) == ("http://there:2", "a=b")


def test_invalid_addresses_are_named() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        load(CliSettings, {"GATEWAY_URL": "here", "AMQP_URL": "http://here"})
    assert [problem.partition(":")[0] for problem in invalid.value.problems] == ["GATEWAY_URL", "AMQP_URL"]
