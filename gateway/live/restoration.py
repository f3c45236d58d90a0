"""Reset of this gateway after a restore of the database from a backup.

The logs of rooms and inboxes have gone back, and new entries take positions that sockets have received before. No
stream, subscription or ban that the gateway remembers holds any more. So every socket is closed at once, with
`server:drain` and 1012 as by a restart, and leaves its channels in the same step: no line of the restored database
reaches an old stream. The clients resume elsewhere or here, and those that are ahead get `recovered: false`.
"""

from collections.abc import Callable

from gateway import metrics
from gateway.live.connections import Connections
from gateway.live.drain import farewell, spread_ms
from gateway.live.socket import Socket
from shared.telemetry import logs

log = logs.get(__name__)


class Restoration:
    """Resets the gateway. `leave_all` ends a socket's subscriptions; `forget` drops what outlives the sockets."""

    def __init__(
        self, connections: Connections, leave_all: Callable[[Socket], None], *forget: Callable[[], None]
    ) -> None:
        self._connections = connections
        self._leave_all = leave_all
        self._forget = forget

    def reset(self) -> None:
        """Close every socket for a resume, and forget the old positions.

        It never awaits: clients closed first would reconnect while outdated sockets are still open.
        """
        sockets = list(self._connections.sockets)
        log.warning("database_restored", connections=len(sockets))
        metrics.RESTORES.inc()
        delay_ms = spread_ms(len(sockets))
        for socket in sockets:
            socket.close(farewell(delay_ms))
            self._leave_all(socket)
        for forget in self._forget:
            forget()
