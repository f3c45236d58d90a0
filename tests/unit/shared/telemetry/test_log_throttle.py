"""Repeated warnings: one a second, with the number of those left out."""

import json
import logging
from collections.abc import Iterator

import pytest

from shared.telemetry import log_throttle, logs
from shared.telemetry.log_throttle import KINDS_MAX, LogThrottle


class ThrottleClock:
    """A clock that the test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_one_line_of_a_kind_passes_in_a_second() -> None:
    clock = ThrottleClock()
    throttle = LogThrottle(clock)
    assert [throttle.check("a") for _ in range(3)] == [0, None, None]
    assert throttle.check("b") == 0
    clock.now_s += 1.0
    assert [throttle.check("a"), throttle.check("a"), throttle.check("b")] == [2, None, 0]
    clock.now_s += 1.0
    assert throttle.check("a") == 1


def test_number_of_kinds_is_bounded() -> None:
    throttle = LogThrottle(ThrottleClock())
    for number in range(3 * KINDS_MAX):
        throttle.check(number)
        throttle.check(number)
    assert len(throttle._kinds) <= KINDS_MAX


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root")
def test_flood_of_warnings_writes_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_throttle, "INTERVAL_S", 0.05)
    logs.configure("gateway", "node_1", "info", "json")
    foreign = logging.getLogger("a_library")
    for number in range(1000):
        logs.get("test").warning("command_refused", number=number)
        foreign.error("cannot connect to %s", number)
        logs.get("test").info("connected", number=number)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    warnings = [line for line in lines if line["event"] == "command_refused"]
    assert len([line for line in lines if line["event"] == "connected"]) == 1000
    assert len(warnings) < 50
    assert sum(line.get("left_out", 0) for line in warnings) + len(warnings) <= 1000
    assert any(line.get("left_out") for line in warnings)
    assert 0 < len([line for line in lines if line.get("template") == "cannot connect to %s"]) < 50
