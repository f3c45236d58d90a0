"""Refreshes the search words of rooms that an earlier version stored, once for each database.

Versions before this one cut words at combining marks. The work runs in the background, in batches in the order of ids;
it is idempotent, so a killed process continues and two may run at once. A room that is renamed meanwhile is left to
its writer.
"""

import asyncio

from pymongo import ASCENDING, UpdateOne

from chat_service.rooms.room import words_of
from chat_service.storage.migration import read_state, save_state
from shared.errors import Unavailable
from shared.mongo import Database, Document, translated
from shared.telemetry import logs

log = logs.get(__name__)

NAME = "room_words"
BATCH = 500
RETRY_S = 5.0


async def refresh_words(database: Database) -> None:
    """Refresh all rooms, unless done already; retry while the database is unavailable."""
    while True:
        try:
            await _refresh(database)
            return
        except Unavailable as error:
            log.warning("search_words_wait", reason=str(error))
            await asyncio.sleep(RETRY_S)


async def _refresh(database: Database) -> None:
    rooms, states = database["room_records"], database["migrations"]
    state = await read_state(states, NAME)
    after = state.get("after", "")
    while not state.get("done"):
        with translated():
            found = (
                await rooms.find({"_id": {"$gt": after}}, {"name": 1, "words": 1})
                .sort("_id", ASCENDING)
                .limit(BATCH)
                .to_list(None)
            )
            writes = [write for document in found if (write := _write_of(document)) is not None]
            if writes:
                await rooms.bulk_write(writes, ordered=False)
            after = found[-1]["_id"] if found else after
        state = {"after": after, "done": not found}
        await save_state(states, NAME, {"$set": state})
        if not found:
            log.info("search_words_refreshed")


def _write_of(document: Document) -> UpdateOne | None:
    words = words_of(document["name"])
    if words == document.get("words"):
        return None
    return UpdateOne({"_id": document["_id"], "name": document["name"]}, {"$set": {"words": words}})
