"""The schema version of a service's collections: no release starts on data that a newer one has written.

Each worker has a number, which a release raises when an earlier one could not read its documents any more. At start a
worker compares its number with the stored one before it reads or writes anything else:

    none stored, or a lower one    store its own, with the name of the release
    the same                       start
    a higher one                   refuse: exit code 3

`schemas`: `_id` is the service, `version` the highest number of any release that started, `release` that release.
"""

from typing import NamedTuple

from pymongo.errors import DuplicateKeyError

from shared.errors import DatabaseTooNew, Unavailable
from shared.mongo import Database, translated
from shared.version import VERSION

COLLECTION = "schemas"


class Schema(NamedTuple):
    """The schema that this release of a service reads and writes."""

    service: str
    version: int

    async def claim(self, database: Database) -> None:
        """Record this version, unless it is recorded. Raises DatabaseTooNew if a newer one is, and Unavailable."""
        schemas = database[COLLECTION]
        with translated():
            stored = await schemas.find_one({"_id": self.service})
        version = 0 if stored is None else int(stored["version"])
        if stored is not None and version > self.version:
            raise DatabaseTooNew(
                f"the database has schema {version} of {self.service}, written by release {stored['release']}; "
                f"release {VERSION} reads schemas up to {self.version}: start {stored['release']} or later, "
                "or restore a backup from before that upgrade"
            )
        if version == self.version:
            return
        chosen = {"_id": self.service, "version": {"$lt": self.version}}
        change = {"$set": {"version": self.version, "release": VERSION}}
        try:
            with translated():
                await schemas.update_one(chosen, change, upsert=True)
        except DuplicateKeyError as error:
            raise Unavailable(f"another process recorded a schema of {self.service} at the same moment") from error
