"""The broker's confirms, as publishers see them."""

import asyncio
from collections.abc import Iterable
from typing import Self

from shared.errors import Unavailable


class Confirm:
    """The broker's confirm of one body: the future that its lines share, and the commands among the lines."""

    __slots__ = ("command_ids", "done")

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.command_ids: list[str] = []

    @classmethod
    def failed(cls, reason: str) -> Self:
        """Return the confirm of a line that was not accepted."""
        confirm = cls()
        confirm.fail(Unavailable(reason))
        return confirm

    def resolve(self) -> None:
        """Report that the broker has the body."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Unavailable) -> None:
        """Report that the broker may not have the body. The future may be ignored."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


async def confirmed(confirms: "Iterable[asyncio.Future[None]]") -> None:
    """Wait until the broker has confirmed all. Raises Unavailable."""
    for confirm in dict.fromkeys(confirms):  # the lines of one AMQP message share its confirm
        await confirm
