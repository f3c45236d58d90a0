"""A private MongoDB-compatible server on a loopback port: `mongod` if installed, otherwise SecantusDB."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from deploy.local.command import SYSTEM_PATH, CommandLine
from deploy.local.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """Location and command of one server. Call `prepare` first."""

    directory: Path
    port: int
    mongod: str | None = None

    @property
    def uri(self) -> str:
        """Return the address for MongoDB clients on this machine."""
        return f"mongodb://{LOOPBACK}:{self.port}/?directConnection=true"

    @property
    def product(self) -> str:
        """Return the server in use. The two cannot read each other's files, so each has its own directory."""
        return "mongod" if self.mongod else "secantusdb"

    @property
    def data(self) -> Path:
        """Return the directory of the data files."""
        return self.directory.resolve() / self.product

    def prepare(self) -> None:
        """Create the server's directory and keep existing data."""
        self.data.mkdir(parents=True, exist_ok=True)
        # An empty file stops SecantusDB from reading one in the working directory, HOME or /etc.
        (self.directory / "secantusd.toml").touch()

    def command(self) -> CommandLine:
        """Return the command of the server, in the foreground.

        SecantusDB syncs every write; with `mongod` a client requests that (`j`).
        """
        arguments = self._mongod(self.mongod) if self.mongod else self._secantusdb()
        environment = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": str(self.directory.resolve())}
        return CommandLine(arguments, environment, self.directory)

    def is_ready(self) -> bool:
        """Return whether the server answers a ping. Blocks for up to 1 s."""
        try:
            with MongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=1_000, socketTimeoutMS=1_000) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def _mongod(self, program: str) -> tuple[str, ...]:
        place = ("--dbpath", str(self.data), "--bind_ip", LOOPBACK, "--port", str(self.port), "--nounixsocket")
        return (program, *place, "--wiredTigerCacheSizeGB", "0.5")

    def _secantusdb(self) -> tuple[str, ...]:
        # Run through the interpreter, because a shebang fails in a path with spaces. The script execs the server.
        program = (sys.executable, str(Path(sys.executable).with_name("secantusd-rs")))
        place = ("--storage-path", str(self.data), "--host", LOOPBACK, "--port", str(self.port))
        configuration = ("--config", str(self.directory.resolve() / "secantusd.toml"), "--log-level", "WARNING")
        # Without these options an acknowledged write can be lost and recovery takes 17 s: docs/decisions.md.
        durability = ("--sync-on-commit", "--log-file-max", "16M")
        return (*program, *place, *configuration, *durability, "--cache-size", "512M")


def find_mongod(search_path: str) -> str | None:
    """Return the `mongod` on `search_path` (in the form of PATH), or None."""
    return shutil.which("mongod", path=search_path)
