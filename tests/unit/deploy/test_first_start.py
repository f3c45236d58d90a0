"""The secrets of a Compose installation: complete, random, kept, each only for its reader."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from deploy.tools import first_start


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The volumes after the first start."""
    for reader in first_start.READERS:
        (tmp_path / reader).mkdir()
    first_start.make(tmp_path)
    return tmp_path


def contents(directory: Path) -> dict[str, str]:
    """Return every secret by its path, without the definitions, whose salts change."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "definitions.json"]
    return {str(path.relative_to(directory)): path.read_text() for path in files}


def test_each_reader_gets_its_secrets(made: Path) -> None:
    assert contents(made).keys() == {
        "gateway/amqp_url",
        "gateway/jwt_secret",
        "worker/amqp_url",
        "worker/mongodb_uri",
        "publisher/amqp_url",
        "database/keyfile",
        "database/root_password",
        "database/realtime_password",
        "grafana/admin_password",
    }
    assert len(set(contents(made).values())) == len(contents(made))
    assert {path.stat().st_mode & 0o777 for path in made.rglob("*") if path.is_file()} == {0o400}


def test_second_start_keeps_all_secrets(made: Path) -> None:
    before = contents(made)
    first_start.make(made)
    assert contents(made) == before


def test_definitions_match_the_addresses(made: Path) -> None:
    users = json.loads((made / "broker" / "definitions.json").read_text())["users"]
    for user in users:
        url = (made / user["name"] / "amqp_url").read_text()
        password = url.removeprefix(f"amqp://{user['name']}:").partition("@")[0]
        packed = base64.b64decode(user["password_hash"])
        assert packed[4:] == hashlib.sha256(packed[:4] + password.encode()).digest()


def test_secret_is_never_half_written(made: Path) -> None:
    (made / "gateway" / "jwt_secret").unlink()
    (made / "gateway" / "jwt_secret.new").write_text("half")
    first_start.make(made)
    assert len((made / "gateway" / "jwt_secret").read_text()) > 60
