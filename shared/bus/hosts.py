"""The nodes of a broker cluster, in the order in which a process tries them. Pure apart from the random order."""

import random
from collections.abc import Iterator

ONLY_HOST_TIMEOUT_S = 10.0
HOST_TIMEOUT_S = 2.0  # a frozen node accepts connections and never answers


class BrokerHosts:
    """The hosts of one AMQP_URL: `amqp://user:password@host1:5672,host2:5672/vhost`.

    Random order spreads the processes over the nodes. No host is tried again before all others have been tried.
    """

    def __init__(self, url: str) -> None:
        self.urls = _urls_of(url)
        self._order = self._endless_order()

    def next_url(self) -> str:
        """Return the URL of the host to try next."""
        return next(self._order)

    @property
    def connect_timeout_s(self) -> float:
        """Return the time to wait for one host."""
        return ONLY_HOST_TIMEOUT_S if len(self.urls) == 1 else HOST_TIMEOUT_S

    def _endless_order(self) -> Iterator[str]:
        order = random.sample(self.urls, len(self.urls))
        while True:
            yield from order


def _urls_of(url: str) -> list[str]:
    head, separator, rest = url.rpartition("@")
    if not separator:
        head, separator, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    return [f"{head}{separator}{host}{slash}{path}" for host in hosts.split(",") if host]
