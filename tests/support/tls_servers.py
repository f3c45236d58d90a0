"""A broker and a way to the database that speak TLS with certificates of a private CA."""

import asyncio
import concurrent.futures
import ssl
import threading
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from deploy.local.ports import LOOPBACK, KeptPorts
from tests.support.infrastructure import START_TIMEOUT_S, Broker
from tests.support.tcp_relay import Streams, relay

CHUNK_BYTES = 65_536
CLOSING_S = 0.2  # the event loop needs some turns to close aborted connections


class TlsFiles:
    """A CA's certificate, and the certificate and key of a server on the loopback address."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = directory / "ca.pem"
        self.certificate = directory / "server.pem"
        self.key = directory / "server.key"
        authority = trustme.CA()
        issued = authority.issue_cert(LOOPBACK)
        authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        issued.private_key_pem.write_to_path(self.key)


class TlsBroker(Broker):
    """A RabbitMQ node with an additional listener for `amqps`."""

    def __init__(self, directory: Path, files: TlsFiles) -> None:
        super().__init__(directory)
        self._files = files
        self._port = KeptPorts(directory / "tls.json").take("amqps")

    def configure(self, file: Path) -> None:
        """Add the listener."""
        options = {
            "listeners.ssl.default": f"{LOOPBACK}:{self._port}",
            "ssl_options.cacertfile": self._files.authority,
            "ssl_options.certfile": self._files.certificate,
            "ssl_options.keyfile": self._files.key,
        }
        with file.open("a") as configuration:
            configuration.writelines(f"{name} = {value}\n" for name, value in options.items())

    def tls_url(self, authority: Path) -> str:
        """Return the address for clients that trust a CA."""
        return f"amqps://guest:guest@{LOOPBACK}:{self._port}/?cafile={authority}"


class TlsDatabase:
    """The database behind TLS, while the context lasts.

    The relay has a thread: the driver blocks the event loop of its caller while it closes.
    """

    def __init__(self, uri: str, files: TlsFiles) -> None:
        self._uri = uri
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(files.certificate, files.key)
        self._end: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
        self._end = concurrent.futures.Future()
        self._port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="tls-database", daemon=True)

    def __enter__(self) -> str:
        """Return the address, without the option that names a CA."""
        self._thread.start()
        self._end.result(START_TIMEOUT_S)
        return f"mongodb://{LOOPBACK}:{self._port}/?directConnection=true&tls=true"

    def __exit__(self, *_: object) -> None:
        """Abort all connections."""
        loop, end = self._end.result()
        loop.call_soon_threadsafe(end.set)
        self._thread.join()

    async def _serve(self) -> None:
        end = asyncio.Event()
        server = await asyncio.start_server(partial(_to_database, self._uri), LOOPBACK, 0, ssl=self._context)
        self._port = server.sockets[0].getsockname()[1]
        self._end.set_result((asyncio.get_running_loop(), end))
        await end.wait()
        server.close()
        relays = asyncio.all_tasks() - {asyncio.current_task()}
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        await asyncio.sleep(CLOSING_S)


async def _to_database(uri: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    address = urlsplit(uri)

    async def connect() -> Streams:
        return Streams(*await asyncio.open_connection(address.hostname, address.port))

    await relay(Streams(reader, writer), connect(), _copy, _copy)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
