"""The driver's errors: an unavailable database, or a document that can never be stored."""

import pymongo.errors
import pytest
from bson.errors import InvalidDocument
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WriteError,
)

from shared.errors import Unavailable
from shared.mongo import only_duplicates, translated

DISK_FULL = OperationFailure("quotes a document", 14031, {"codeName": "OutOfDiskSpace", "code": 14031})
TOO_LARGE = WriteError("object to insert too large", 10334)
DUPLICATE = {"index": 0, "code": 11000}
QUOTA = {"index": 1, "code": 8000}


def bulk(*failures: dict[str, int], concern: dict[str, int] | None = None) -> BulkWriteError:
    """Return the error of a bulk write."""
    return BulkWriteError({"writeErrors": list(failures), "writeConcernErrors": [concern] if concern else []})


@pytest.mark.parametrize(
    "error",
    [
        DISK_FULL,
        OperationFailure("over quota", 8000),
        OperationFailure("not authorized", 13),
        OperationFailure("authentication failed", 18),
        OperationFailure("write conflict", 112),
        OperationFailure("interrupted", 11601),
        OperationFailure("writes are blocked", 371),
        OperationFailure("panic", 1),
        OperationFailure("an error without a code"),
        OperationFailure("an assertion that nobody foresaw", 7654321),
        pymongo.errors.ExecutionTimeout("exceeded time limit", 50),
        pymongo.errors.CursorNotFound("cursor is gone", 43),
        pymongo.errors.NetworkTimeout("timed out"),
        pymongo.errors.ConfigurationError("the server is too old"),
        WriteConcernError("no majority", 64),
        WriteConcernError("a write concern error with any code", 2),
        bulk(QUOTA),
        bulk(DUPLICATE, QUOTA),
        bulk(DUPLICATE, concern={"code": 64}),
        bulk(concern={"code": 100}),
    ],
    ids=repr,
)
def test_error_of_the_server_is_unavailable(error: PyMongoError) -> None:
    with pytest.raises(Unavailable), translated():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        DuplicateKeyError("duplicate key", 11000),
        TOO_LARGE,
        WriteError("document failed validation", 121),
        WriteError("cannot apply $inc to a string", 14),
        WriteError("_id is immutable", 66),
        OperationFailure("bad value", 2),
        pymongo.errors.InvalidOperation("no operations to execute"),
        bulk(DUPLICATE),
        bulk(DUPLICATE, {"index": 2, "code": 121}),
    ],
    ids=repr,
)
def test_error_of_the_input_passes(error: PyMongoError) -> None:
    with pytest.raises(type(error)) as raised, translated():
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", [InvalidDocument("key with a null byte"), OverflowError("over 8 bytes")], ids=repr)
def test_document_that_has_no_bson_passes(error: Exception) -> None:
    with pytest.raises(type(error)), translated():
        raise error


def test_duplicate_only_failure_is_detected() -> None:
    assert only_duplicates(bulk(DUPLICATE, DUPLICATE))
    assert not only_duplicates(bulk(DUPLICATE, {"index": 2, "code": 121}))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DISK_FULL, "OutOfDiskSpace (14031)"),
        (bulk(DUPLICATE, QUOTA), "BulkWriteError (8000)"),
        (bulk(concern={"code": 100}), "BulkWriteError (100)"),
        (pymongo.errors.NetworkTimeout("127.0.0.1:27017: timed out"), "NetworkTimeout"),
    ],
    ids=repr,
)
def test_reason_names_the_cause_and_quotes_nothing(error: PyMongoError, cause: str) -> None:
    with pytest.raises(Unavailable) as raised, translated():
        raise error
    assert str(raised.value) == f"the database is unavailable: {cause}"
