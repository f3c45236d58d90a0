"""Close codes of `/v1/live`. Pure."""

from enum import IntEnum


class CloseCode(IntEnum):
    """The reason why the server closes a socket, which decides the client's reaction."""

    GOING_AWAY = 1001
    UNSUPPORTED = 1003
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTARTING = 1012
    OVERLOADED = 1013
    BAD_FRAMES = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    SILENT = 4408
    SLOW = 4413
    RATE_ABUSE = 4429
