"""A queue of one process."""

from collections.abc import Callable

from shared.bus.topology import Arguments


class PrivateQueue:
    """A queue of this process: exclusive, transient, and with a new `name` for every connection.

    What it held is gone with its connection, and so are its bindings, which the bus makes again under the new name.
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
        """Return the name under the present connection, or the last one."""
        return f"{self.prefix}.{self._process}.{self._connection}"

    def rename(self, connection: int) -> None:
        """Take the name for a new connection."""
        self._connection = connection
