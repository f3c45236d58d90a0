"""The broker's confirms, as those see them who publish."""

import asyncio
from collections.abc import Iterable
from typing import Self

from shared.errors import Unavailable


class Confirm:
    """The broker's confirm of one body: the future that its lines share, and the commands that go with it."""

    __slots__ = ("command_ids", "done")

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.command_ids: list[str] = []

    @classmethod
    def failed(cls, reason: str) -> Self:
        """Of a line that was not taken."""
        confirm = cls()
        confirm.fail(Unavailable(reason))
        return confirm

    def resolve(self) -> None:
        """The broker has it."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Unavailable) -> None:
        """The broker may not have it. Nobody has to look at that."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


async def confirmed(confirms: "Iterable[asyncio.Future[None]]") -> None:
    """Return once the broker has confirmed all. Raises Unavailable."""
    for confirm in dict.fromkeys(confirms):  # many lines share one AMQP message, and so one confirm
        await confirm
