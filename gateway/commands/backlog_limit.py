"""Load shedding: the number of commands that may wait for a partition, so that none waits long. Pure.

A partition that falls behind answers ever larger bodies ever later, and the commands that gather meanwhile would all be
answered late. So the time that the last body took determines how many may gather: as many as the owner can answer
within `ANSWER_TARGET_MS`. A command thus waits at most about twice that time. The rest is refused at once.
"""

from shared.commands.body import COMMANDS_MAX

ANSWER_TARGET_MS = 200
WAITING_MIN = 16
GROWTH = 1.1
FAST_GROWTH = 1.5


class BacklogLimit:
    """Adaptive limit on the waiting commands of one partition: `value`, from 16 to 500."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = COMMANDS_MAX

    def body_answered(self, commands: int, took_ms: int) -> None:
        """Update the limit after a body of `commands` commands was answered in `took_ms`.

        A late body at most halves the limit: one slow commit is not an overload. A late body of fewer than 16 commands
        changes nothing: it shows nothing about the rate.
        """
        if took_ms > ANSWER_TARGET_MS:
            if commands >= WAITING_MIN:
                in_time = commands * ANSWER_TARGET_MS // took_ms
                self.value = max(in_time, self.value // 2, WAITING_MIN)
        elif took_ms < ANSWER_TARGET_MS * 0.8:
            growth = FAST_GROWTH if took_ms < ANSWER_TARGET_MS * 0.4 else GROWTH
            self.value = min(int(self.value * growth) + 1, COMMANDS_MAX)
