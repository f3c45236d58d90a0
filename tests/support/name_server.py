"""A DNS server with one answer: the addresses of the running gateways, as in Docker and Kubernetes.

with NameServer() as names:
    names.addresses = ["127.0.7.1", "127.0.7.2"]
    names.port
"""

import socket
import struct
import threading
from types import TracebackType
from typing import Self

_HEADER = struct.Struct("!HHHHHH")
_ADDRESS = struct.Struct("!HHHIH4s")
_THE_NAME_ASKED_FOR = 0xC00C  # pointer to the question after the header
_A, _IN, _TTL_S = 1, 1, 1
_ANSWER_FLAGS = 0x8580  # response, authoritative, recursion desired and available


class NameServer:
    """Answers every A query with `addresses` and any other query with nothing. RFC 1035, 4.1."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(8192)
            if not question:
                return
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", _HEADER.size) + 5  # the root's empty label, type and class
        question = query[_HEADER.size : end]
        asks_for_addresses = question[-4:] == struct.pack("!HH", _A, _IN)
        records = [
            _ADDRESS.pack(_THE_NAME_ASKED_FOR, _A, _IN, _TTL_S, 4, socket.inet_aton(address))
            for address in (self.addresses if asks_for_addresses else ())
        ]
        id_ = int.from_bytes(query[:2])
        return _HEADER.pack(id_, _ANSWER_FLAGS, 1, len(records), 0, 0) + question + b"".join(records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
