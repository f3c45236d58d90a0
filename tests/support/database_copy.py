"""A backup of a small database in memory, and its restore, as `mongodump` and `mongorestore --drop` make them."""

from dataclasses import dataclass
from typing import Self

from shared.generation_store import COLLECTION
from shared.mongo import Database, Document


@dataclass(frozen=True)
class DatabaseCopy:
    """All documents by collection, without the database's generation, which no backup contains."""

    documents: dict[str, list[Document]]

    @classmethod
    async def take(cls, database: Database) -> Self:
        """Copy a database that nobody writes to."""
        names = [name for name in await database.list_collection_names() if name != COLLECTION]
        return cls({name: await database[name].find({}).to_list(None) for name in names})

    async def restore(self, database: Database) -> None:
        """Replace all documents with those of the backup. Indexes stay."""
        for name in await database.list_collection_names():
            await database[name].delete_many({})
        for name, documents in self.documents.items():
            if documents:
                await database[name].insert_many(documents)
