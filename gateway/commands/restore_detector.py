"""Detection of a restore of the database, by the generation in the heartbeats of chat_service. Pure."""

GENERATIONS_KEPT = 16


class RestoreDetector:
    """The generations of the database that this gateway has heard of, the current one last.

    A replica that was frozen during a restore may still announce an earlier generation: see `is_outdated`. Bound: the
    last 16. Replicas of earlier releases announce none, which says nothing.
    """

    def __init__(self) -> None:
        self._heard: list[str] = []

    def is_restored(self, generation: str) -> bool:
        """Return whether a generation has taken the place of another one, and remember it."""
        if not generation or generation in self._heard:
            return False
        self._heard.append(generation)
        del self._heard[:-GENERATIONS_KEPT]
        return len(self._heard) > 1

    def is_outdated(self, generation: str) -> bool:
        """Return whether a generation is one before the current one."""
        return bool(generation) and generation in self._heard[:-1]
