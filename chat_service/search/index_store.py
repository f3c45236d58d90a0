"""The search index in MongoDB: every query on `message_words`, and those on messages that the index needs.

`message_words`: `_id` is room id/level/number; the pages of `tree`. A page is replaced only if the stored `rev` is
lower than the new one, so a slow writer cannot bring back words that a later entry of the log removed. The index
(`_id`, `rev`) serves these writes on SecantusDB, which would scan the collection otherwise.
"""

from collections.abc import Collection, Iterable

from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.read_concern import ReadConcern

from chat_service.rooms.message import Message
from chat_service.search.tree import IndexedText, Page, StoredPage, compressed, decompressed
from chat_service.storage.member_store import upsert_newer
from chat_service.storage.message_documents import to_message, to_old_message
from shared.mongo import (
    ONE_BATCH,
    Database,
    Document,
    Documents,
    Indexes,
    find_among,
    remove_all,
    translated,
    write_each,
)

INDEXES: Indexes = {
    "message_words": [
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
        IndexModel([("roomId", ASCENDING)]),
    ],
}
_TEXT = {"seq": 1, "userId": 1, "text": 1, "atMs": 1, "createdAtMs": 1, "deletedAtMs": 1}
PageKey = tuple[str, Page]


class IndexStore:
    """Reads and writes of the search index. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        majority = ReadConcern("majority")
        self._words = database["message_words"]
        self._log = database.get_collection("room_log", read_concern=majority)
        self._old = database.get_collection("messages", read_concern=majority)

    # Pages ----------------------------------------------------------------------------------------------------------

    async def pages(self, keys: Collection[PageKey]) -> dict[PageKey, StoredPage]:
        """Return the pages that exist, by room id and place."""
        found = await find_among(self._words, [_id_of(*key) for key in keys])
        return {(page.room_id, page.page): page for page in map(_to_page, found)}

    async def put_pages(self, pages: Iterable[StoredPage]) -> None:
        """Write pages, each unless it already shows a later entry."""
        writes = [
            UpdateOne(
                {"_id": _id_of(page.room_id, page.page), "rev": {"$lt": page.rev}},
                {"$set": _fields_of(page)},
                upsert=True,
            )
            for page in pages
        ]
        await upsert_newer(self._words, writes)

    async def replace_pages(self, pages: Iterable[tuple[StoredPage, int]]) -> None:
        """Write pages, each if it still has the rev given with it; a page that was changed meanwhile stays."""
        writes = [
            UpdateOne({"_id": _id_of(page.room_id, page.page), "rev": rev}, {"$set": _fields_of(page)})
            for page, rev in pages
        ]
        await write_each(self._words, writes)

    async def remove_room(self, room_id: str) -> None:
        """Remove all pages of a room, 500 at a time."""
        await remove_all(self._words, {"roomId": room_id})

    # Messages -------------------------------------------------------------------------------------------------------

    async def texts(self, room_id: str, first: int, last: int) -> list[IndexedText]:
        """Return the messages with `first` ≤ seq ≤ `last`, oldest first, as they are now; erased rooms have none."""
        newer = await self._texts_in(self._log, room_id, first, last)
        older: list[IndexedText] = []
        if not newer or newer[0].seq > first:
            older = await self._texts_in(self._old, room_id, first, newer[0].seq - 1 if newer else last)
        return older + newer

    async def _texts_in(self, source: Documents, room_id: str, first: int, last: int) -> list[IndexedText]:
        chosen = {"roomId": room_id, "seq": {"$gte": first, "$lte": last}}
        with translated():
            found = await source.find(chosen, _TEXT, batch_size=ONE_BATCH).to_list(None)
        return sorted((_to_text(document) for document in found), key=lambda message: message.seq)

    async def messages(self, message_ids: Collection[str]) -> dict[str, Message]:
        """Return the messages with these ids as they are now, by id, without deleted ones."""
        found = await self._documents(message_ids)
        return {
            id_: to_message(document) if "atMs" in document else to_old_message(document)
            for id_, document in found.items()
            if _text_of(document) is not None
        }

    async def places(self, message_ids: Collection[str]) -> dict[str, tuple[str, int, int]]:
        """Return room id, seq and time of messages by their ids; deleted ones too."""
        found = await self._documents(message_ids)
        return {
            id_: (document["roomId"], document["seq"], _time_of(document))
            for id_, document in found.items()
            if "seq" in document
        }

    async def _documents(self, message_ids: Collection[str]) -> dict[str, Document]:
        found = {document["_id"]: document for document in await find_among(self._log, message_ids)}
        missing = [id_ for id_ in message_ids if id_ not in found]
        if missing:
            found |= {document["_id"]: document for document in await find_among(self._old, missing)}
        return found


def _id_of(room_id: str, page: Page) -> str:
    return f"{room_id}/{page.level}/{page.number}"


def _fields_of(stored: StoredPage) -> Document:
    return {
        "roomId": stored.room_id,
        "level": stored.page.level,
        "number": stored.page.number,
        "rev": stored.rev,
        "through": stored.through,
        "words": None if stored.words is None else compressed(stored.words),
        "firstId": stored.first_id,
        "firstAtMs": stored.first_at_ms,
    }


def _to_page(document: Document) -> StoredPage:
    words = document["words"]
    return StoredPage(
        room_id=document["roomId"],
        page=Page(document["level"], document["number"]),
        rev=document["rev"],
        through=document["through"],
        words=None if words is None else decompressed(words),
        first_id=document["firstId"],
        first_at_ms=document["firstAtMs"],
    )


def _to_text(document: Document) -> IndexedText:
    return IndexedText(document["_id"], document["seq"], document["userId"], _time_of(document), _text_of(document))


def _text_of(document: Document) -> str | None:
    """Return the current text of a message; None if it is deleted, or erased with its room."""
    if "seq" not in document or document.get("deletedAtMs") or not document.get("text"):
        return None
    return str(document["text"])


def _time_of(document: Document) -> int:
    return int(document.get("atMs") or document["createdAtMs"])
