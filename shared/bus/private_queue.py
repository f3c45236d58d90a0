"""A queue of one process, and its name."""

from collections.abc import Callable

from shared.bus.topology import Arguments


def sibling_queue(name: str, prefix: str) -> str:
    """Return the name of the queue with another prefix that the same process has on the same connection."""
    return f"{prefix}.{name.partition('.')[2]}"


class PrivateQueue:
    """A queue of this process: exclusive, transient, and with a new `name` for every connection.

    Its contents and bindings are lost with the connection; the bus binds it again under its new name.
    """

    def __init__(self, prefix: str, process: str, arguments: Arguments, on_body: Callable[[bytes], None]) -> None:
        self.prefix = prefix
        self.arguments = arguments
        self.on_body = on_body
        self.bindings: set[tuple[str, str]] = set()
        self._process = process
        self._connection = 0

    @property
    def name(self) -> str:
        """Return the name under the current connection, or the last one."""
        return f"{self.prefix}.{self._process}.{self._connection}"

    def rename(self, connection: int) -> None:
        """Take the name for a new connection."""
        self._connection = connection
