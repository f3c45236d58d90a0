"""Print RabbitMQ definitions with the users of the system, for `load_definitions` or `rabbitmqctl import_definitions`.

    python deploy/tools/broker_definitions.py deploy/rabbitmq/permissions.json PASSWORDS > definitions.json

PASSWORDS is a directory with one file per user, which contains that user's password. The definitions contain salted
hashes. The script uses only the standard library, so that any Python image runs it.
"""

import base64
import hashlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any

SALT_BYTES = 4  # RabbitMQ's format: base64(salt + SHA-256(salt + password))


def password_hash(password: str, salt: bytes) -> str:
    """Return the hash of a password in the format of RabbitMQ's SHA-256 hashing."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(permissions: dict[str, Any], passwords: dict[str, str]) -> dict[str, Any]:
    """Return the definitions: the permissions, and a user without tags for each. Raises KeyError without a password."""
    users = [
        {
            "name": name,
            "password_hash": password_hash(passwords[name], secrets.token_bytes(SALT_BYTES)),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
        }
        for name in user_names(permissions)
    ]
    return {"users": users, **permissions}


def user_names(permissions: dict[str, Any]) -> list[str]:
    """Return the names of the users that have permissions."""
    return [permission["user"] for permission in permissions["permissions"]]


def read_passwords(directory: Path, names: list[str]) -> dict[str, str]:
    """Return the passwords in a directory. Exit with a message if a file is missing or empty."""
    found = {name: (directory / name).read_text().strip() for name in names if (directory / name).is_file()}
    if missing := [name for name in names if not found.get(name)]:
        sys.exit(f"broker_definitions: no password in {', '.join(str(directory / name) for name in missing)}")
    return found


def main(arguments: list[str]) -> None:
    """Print the definitions as JSON."""
    if len(arguments) != 2:
        sys.exit("usage: broker_definitions.py PERMISSIONS PASSWORDS")
    permissions = json.loads(Path(arguments[0]).read_text())
    passwords = read_passwords(Path(arguments[1]), user_names(permissions))
    print(json.dumps(definitions(permissions, passwords), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
