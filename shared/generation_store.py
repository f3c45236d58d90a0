"""The generation of the database: an id that is new after each restore from a backup.

Gateways and clients remember positions in logs that a restore takes back. The database cannot tell that it was
restored, since its content is consistent. So backups leave out the collection `database_generation`, or the operator
drops it after the restore: the first process that needs the generation then makes a new one. chat_service announces it
in its heartbeats, and a gateway that learns of a new one closes its sockets for a resume; see
`gateway.live.restoration`.
"""

import asyncio

from pymongo.errors import DuplicateKeyError

from shared.backoff import Backoff
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from shared.mongo import Database, translated
from shared.telemetry import logs

log = logs.get(__name__)

COLLECTION = "database_generation"
CURRENT = "current"
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 3.0


class DatabaseGeneration:
    """The generation as this process found it. `id` is empty until it is read."""

    def __init__(self, database: Database) -> None:
        self._generations = database[COLLECTION]
        self.id = ""

    async def read(self) -> str:
        """Return the id; read it at the first call, and make one if there is none. Raises Unavailable."""
        if not self.id:
            fresh = new_id(Prefix.GENERATION)
            self.id = await self._read_or_insert(fresh)
            if self.id == fresh:
                log.info("database_generation_begins", generation=fresh)
        return self.id

    async def wait_known(self) -> None:
        """Read the id; retry while the database is unavailable."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        while True:
            try:
                await self.read()
                return
            except Unavailable as error:
                log.warning("generation_not_read", reason=str(error))
            await asyncio.sleep(backoff.next_s())

    async def _read_or_insert(self, fresh: str) -> str:
        """Return the stored id, or store the fresh one.

        Not by one upsert: SecantusDB returns no document to one of two processes that insert at the same moment.
        """
        with translated():
            stored = await self._generations.find_one({"_id": CURRENT})
            if stored is not None:
                return str(stored["id"])
            try:
                await self._generations.insert_one({"_id": CURRENT, "id": fresh})
            except DuplicateKeyError as error:
                raise Unavailable("another process made the generation at the same moment") from error
        return fresh
