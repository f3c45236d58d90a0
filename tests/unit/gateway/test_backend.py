"""Which clock the deadlines of commands are told by."""

from typing import Any, cast

from gateway.backend import Backend
from gateway.commands.router import CommandRouter
from shared.bus.bus import Bus
from shared.commands.command import Caller

ANN = Caller(user_id="ann")


class Clocks:
    """The bus tells deadlines since 1970, the router ends of life since the start of the machine."""

    def deadline_ms(self) -> int:
        return 1_800_000_000_000

    def life_ends_ms(self) -> int:
        return 7_000


def test_room_commands_live_by_monotonic_clock_and_queries_by_wall_clock() -> None:
    clocks: Any = Clocks()
    backend = Backend(cast(Bus, clocks), cast(CommandRouter, clocks))
    assert backend.room_head(ANN)["life_ends_ms"] == 7_000
    assert backend.head(ANN)["deadline_ms"] == 1_800_000_000_000
