"""Background repair of the records of claimed partitions; retried while the database is unavailable."""

from collections.abc import Callable, Mapping

from chat_service.storage.repair import Repair
from shared.bus.delivery import Delivery
from shared.errors import Unavailable
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

LOOK_INTERVAL_S = 1.0


class ClaimedRepair:
    """The claimed partitions whose records are not repaired yet, and the terms under which the others were."""

    def __init__(self, repair: Repair) -> None:
        self._repair = repair
        self._unrepaired: set[int] = set()
        self._repaired: dict[int, int] = {}

    def claimed(self, number: int) -> None:
        """Repair a partition soon."""
        self._unrepaired.add(number)

    def repaired(self, terms: Mapping[int, int]) -> dict[int, int]:
        """Return the terms, by partition, under which records were repaired."""
        return {number: term for number, term in terms.items() if self._repaired.get(number) == term}

    async def run(self, terms: Callable[[], Mapping[int, int]], announce: Callable[[list[Delivery]], None]) -> None:
        """Repair until cancelled. `terms` returns those of the owned partitions."""
        while True:
            await until_next(LOOK_INTERVAL_S)
            if not self._unrepaired:
                continue
            partitions, self._unrepaired = self._unrepaired, set()
            owned = terms()
            try:
                repaired = await self._repair.run(partitions, announce)
                self._repaired |= {number: owned[number] for number in partitions if number in owned}
                log.info("records_repaired", rooms=repaired)
            except Unavailable as error:
                log.warning("records_not_repaired", reason=str(error))
                self._unrepaired |= partitions
