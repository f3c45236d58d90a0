"""Make the secrets of a Compose installation at its first start: `python -m deploy.tools.first_start DIRECTORY`.

DIRECTORY has one directory per reader, each a volume that only this reader's containers mount. A secret that exists is
kept, so that later starts change nothing. Each file belongs to the user of its reader and is readable by nobody else.
The script uses only the standard library and `broker_definitions`.
"""

import json
import os
import secrets
import sys
from pathlib import Path

from deploy.tools import broker_definitions

PERMISSIONS = Path(__file__).parents[1] / "rabbitmq" / "permissions.json"
SECRET_BYTES = 48
REALTIME, BROKER, DATABASE, GRAFANA = 10001, 999, 999, 472
READERS = {
    "gateway": REALTIME,
    "worker": REALTIME,
    "publisher": REALTIME,
    "broker": BROKER,
    "database": DATABASE,
    "grafana": GRAFANA,
}


def kept(path: Path, made: str) -> str:
    """Return the content of a file; write `made` to it first if it does not exist or is empty."""
    if not path.exists() or not path.read_text().strip():
        unfinished = path.with_suffix(".new")
        unfinished.write_text(made)
        unfinished.chmod(0o400)
        unfinished.replace(path)
    return path.read_text().strip()


def password() -> str:
    """Return a new password that needs no quoting in a URL."""
    return secrets.token_urlsafe(SECRET_BYTES)


def make(directory: Path) -> None:
    """Make the missing secrets of all readers."""
    kept(directory / "gateway" / "jwt_secret", password())
    kept(directory / "grafana" / "admin_password", password())
    _make_database(directory)
    _make_broker(directory)


def _make_database(directory: Path) -> None:
    kept(directory / "database" / "keyfile", secrets.token_hex(SECRET_BYTES))
    kept(directory / "database" / "root_password", password())
    user = kept(directory / "database" / "realtime_password", password())
    uri = f"mongodb://realtime:{user}@mongodb:27017/?replicaSet=rs0&authSource=realtime"
    kept(directory / "worker" / "mongodb_uri", uri)


def _make_broker(directory: Path) -> None:
    """Make the definitions of the broker, and the address with a password for each of its accounts."""
    permissions = json.loads(PERMISSIONS.read_text())
    passwords: dict[str, str] = {}
    for account in broker_definitions.user_names(permissions):
        url = kept(directory / account / "amqp_url", f"amqp://{account}:{password()}@rabbitmq:5672/")
        passwords[account] = url.removeprefix(f"amqp://{account}:").partition("@")[0]
    definitions = directory / "broker" / "definitions.json"
    # Written at every start, because an upgrade may bring other permissions.
    definitions.unlink(missing_ok=True)
    kept(definitions, json.dumps(broker_definitions.definitions(permissions, passwords), indent=2))


def hand_over(directory: Path) -> None:
    """Give each reader its directory. Needs the capability CHOWN."""
    for reader, user in READERS.items():
        for path in (*(directory / reader).iterdir(), directory / reader):
            os.chown(path, user, user)


def main(arguments: list[str]) -> None:
    """Make the secrets and hand them over."""
    if len(arguments) != 1:
        sys.exit("usage: first_start DIRECTORY")
    make(Path(arguments[0]))
    hand_over(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
