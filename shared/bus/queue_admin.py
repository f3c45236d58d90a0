"""Administrative operations on queues, apart from normal traffic: probe, measure, delete, and read dead letters."""

from collections.abc import Awaitable, Callable

from shared.bus.broker_connection import NoQueueError
from shared.bus.broker_objects import DeadLetter
from shared.bus.kept_connection import KeptConnection
from shared.bus.topology import DEAD_LETTERS
from shared.errors import Unavailable


class QueueAdmin:
    """Administers the queues of the broker. Each method raises Unavailable when the broker cannot be reached."""

    def __init__(self, connection: KeptConnection) -> None:
        self._connection = connection

    async def is_gone(self, queue: str) -> bool:
        """Return whether the broker has no such queue; False if it does not answer in time."""
        async with self._connection.reaching("probe") as link:
            return await link.objects.is_gone(queue)

    async def delete(self, queue: str) -> None:
        """Delete a durable queue of an earlier version with its contents."""
        async with self._connection.reaching("delete") as link:
            await link.objects.delete_queue(queue)

    async def delete_unused_exchange(self, exchange: str) -> None:
        """Delete an exchange of an earlier version; raise Unavailable while queues are bound to it."""
        async with self._connection.reaching("delete") as link:
            if not await link.objects.delete_unused_exchange(exchange):
                raise Unavailable(f"the exchange {exchange} is in use")

    async def depth(self, queue: str) -> int:
        """Return the number of messages that wait in a queue."""
        async with self._connection.reaching("measure") as link:
            counts = await link.objects.counts(queue)
        return 0 if counts is None else counts.messages

    async def restore_dead_letters(self) -> None:
        """Declare `realtime.dead` again if somebody deleted it: it has no consumer for the broker to notify."""
        async with self._connection.reaching("declare") as link:
            await link.declare(DEAD_LETTERS)

    async def replay(self, letter: DeadLetter) -> bool:
        """Return a dead letter to its queue; return False if there is no such queue."""
        async with self._connection.reaching("replay") as link:
            try:
                await link.publish("", letter.queue, letter.body, is_persistent=True, is_mandatory=True)
            except NoQueueError:
                return False
        return True

    async def dead_letters(self, settle: Callable[[DeadLetter], Awaitable[bool]]) -> int:
        """Show each dead letter to `settle`, oldest first, and remove those for which it returns True.

        Returns the number of dead letters at the start; later ones are not shown.
        """
        async with self._connection.reaching("read the dead letters", None) as link:
            return await link.objects.dead_letters(settle)
