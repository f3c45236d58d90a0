"""Requirements on every answer to any request."""

import json
from typing import Any

import msgspec

from shared.errors import ErrorCode
from shared.protocol.server_frames import SERVER_FRAMES

CLOSE_CODES = {1000, 1002, 1003, 1007, 1009, 1012, 1013, 4400, 4401, 4403, 4408, 4413, 4429}
CLOSE_CODES |= {4000}  # which the fuzzer sends: the answer to a close repeats its code
CODES = {code.value for code in ErrorCode} - {"INTERNAL"}
TRACES = ("Traceback", 'File "', ".py", "Exception")


class GatewayMisbehaved(AssertionError):
    """The gateway did something that it must never do."""


def check_frame(text: str) -> dict[str, Any]:
    """Check a server frame. Raises GatewayMisbehaved."""
    try:
        frame = json.loads(text)
    except ValueError:
        raise GatewayMisbehaved(f"not JSON: {text[:200]!r}") from None
    if not isinstance(frame, dict) or not {"type", "data"} <= set(frame) <= {"type", "id", "data"}:
        raise GatewayMisbehaved(f"not a frame: {text[:200]!r}")
    if not is_declared(frame["type"], frame["data"]):
        raise GatewayMisbehaved(f"an undeclared frame: {text[:200]!r}")
    if frame["type"] == "error":
        data = frame["data"]
        if data["code"] not in CODES:
            raise GatewayMisbehaved(f"an error of ours: {text[:500]}")
        if any(trace in data["message"] for trace in TRACES):
            raise GatewayMisbehaved(f"tells of the inside: {text[:500]}")
    return frame


def is_declared(type_: Any, data: Any) -> bool:
    """Return whether the protocol declares a server frame of this type with this data."""
    if not isinstance(type_, str):
        return False
    for struct in SERVER_FRAMES.get(type_, ()):
        try:
            msgspec.convert(data, struct)
        except msgspec.ValidationError:
            continue
        return True
    return False


def check_close(code: int | None) -> None:
    """Check a close code of the server; None is a connection that simply ended. Raises GatewayMisbehaved."""
    if code is not None and code not in CLOSE_CODES:
        raise GatewayMisbehaved(f"closed with {code}")


def check_status(status: int, what: str) -> None:
    """Check an answer whose body is not part of the API. Raises GatewayMisbehaved."""
    if status >= 500:
        raise GatewayMisbehaved(f"{what}: {status}")


def check_response(status: int, body: bytes, what: str) -> None:
    """Check a REST answer other than to HEAD. Raises GatewayMisbehaved."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise GatewayMisbehaved(f"{what}: {status} is not JSON: {body[:200]!r}") from None
    if answer.get("status") != status or answer.get("success") is not (status < 400):
        raise GatewayMisbehaved(f"{what}: {status} is not in the envelope: {body[:200]!r}")
    if status >= 400:
        error = answer["error"]
        if status == 500 or error["code"] not in CODES:
            raise GatewayMisbehaved(f"{what}: an error of ours: {body[:500]!r}")
        if any(trace in error["message"] for trace in TRACES):
            raise GatewayMisbehaved(f"{what}: tells of the inside: {body[:500]!r}")
