"""REST as the command line needs it: one call at a time, so nothing but the standard library."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from shared.errors import ErrorCode, Refusal, Unavailable

TIMEOUT_S = 15.0


class Api:
    """The calls of one user."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """The envelope of a success; parameters that are None are left out. Raises as `_call`."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(given)}")

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """The envelope of a success. Raises as `_call`."""
        return self._call("POST", path, json.dumps(body).encode())

    def _call(self, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
        """Raises Refusal with the server's answer, Unavailable when there is none."""
        request = urllib.request.Request(f"{self._url}{target}", body, self._headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - the settings: http(s)
                envelope: dict[str, Any] = json.load(response)
                return envelope
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"{self._url} does not answer: {getattr(error, 'reason', error)}") from error


def room_path(room_id: str) -> str:
    """The path of a room, whatever the id has in it."""
    return f"/v1/chatrooms/{quote(room_id, safe='')}"


def _refusal(error: urllib.error.HTTPError) -> Refusal | Unavailable:
    try:
        problem = json.load(error)["error"]
        code, message = ErrorCode(problem["code"]), str(problem["message"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"{error.url} answers {error.code}, and not as this API does")
    return Unavailable(message) if code is ErrorCode.UNAVAILABLE else Refusal(code, message)
