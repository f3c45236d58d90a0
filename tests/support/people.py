"""Users of a running system, each with a unique id, so that tests can share the system."""

import itertools
import os
from collections.abc import Callable
from typing import Any

from tests.support.live_client import LiveClient, RestClient
from tests.support.tokens import SECRET

_numbers = itertools.count(1)


class Person(RestClient):
    """One user: REST by `call` and `data`, sockets by `live`."""

    def __init__(self, url: str, user_id: str, secret: str, claims: dict[str, Any]) -> None:
        super().__init__(url, user_id, secret=secret, **claims)
        self.id = user_id
        self._url = url
        self._secret = secret
        self._claims = claims

    async def live(self, url: str | None = None) -> LiveClient:
        """Open a socket, on the gateway `url` if given, and authenticate."""
        return await LiveClient.as_user(url or self._url, self.id, secret=self._secret, **self._claims)


Meet = Callable[..., Person]


def people(url: str, secret: str = SECRET) -> Meet:
    """Return `meet(name, **claims)`, which creates a new user."""

    def meet(name: str, **claims: Any) -> Person:
        return Person(url, f"{name}-{os.getpid()}-{next(_numbers)}", secret, claims)

    return meet
