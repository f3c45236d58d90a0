"""A minimal REST client on the standard library: one blocking call at a time."""

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
    """Calls REST as one user."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Return the success envelope; parameters that are None are omitted. Raises Refusal, Unavailable."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(given)}")

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Return the success envelope. Raises Refusal, Unavailable."""
        return self._call("POST", path, json.dumps(body).encode())

    def _call(self, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
        """Send a request and return the success envelope.

        Raises Refusal with the server's answer, Unavailable if there is none.
        """
        request = urllib.request.Request(f"{self._url}{target}", body, self._headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s) by the settings
                envelope: dict[str, Any] = json.load(response)
                return envelope
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"cannot reach {self._url}: {getattr(error, 'reason', error)}") from error


def room_path(room_id: str) -> str:
    """Return the path of a room, with the id quoted."""
    return f"/v1/chatrooms/{quote(room_id, safe='')}"


def _refusal(error: urllib.error.HTTPError) -> Refusal | Unavailable:
    try:
        problem = json.load(error)["error"]
        code, message = ErrorCode(problem["code"]), str(problem["message"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"{error.url} answered {error.code} without this API's envelope")
    return Unavailable(message) if code is ErrorCode.UNAVAILABLE else Refusal(code, message)
