"""Load shedding: the number of commands that may wait for a partition, so that none waits long. Pure.

A partition that falls behind answers larger and larger bodies later and later. The commands gathered meanwhile would
all be answered late. So the number that may gather follows from the time that the last body took: what the owner can
answer within `ANSWER_TARGET_MS`. A command thus waits at most about two such times. The rest is refused at once.
"""

from shared.commands.body import COMMANDS_MAX

ANSWER_TARGET_MS = 200
WAITING_MIN = 16  # a stalled owner says nothing about its rate: always let so many wait
GROWTH = 1.1


class BacklogLimit:
    """Adaptive limit on the waiting commands of one partition: `value`, from 16 to 500."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = COMMANDS_MAX

    def body_answered(self, commands: int, took_ms: int) -> None:
        """Adapt to a body of so many commands that was answered so long after it was sent."""
        if took_ms > ANSWER_TARGET_MS:
            self.value = max(commands * ANSWER_TARGET_MS // took_ms, WAITING_MIN)
        elif took_ms < ANSWER_TARGET_MS * 0.8:
            self.value = min(int(self.value * GROWTH) + 1, COMMANDS_MAX)
