"""Free ports that stay the same between runs, and exclusive claims."""

import socket
from pathlib import Path

import pytest

from deploy.local.claim import CannotClaim, claim_directory, claim_port
from deploy.local.ports import LOOPBACK, KeptPorts, is_free, pick


@pytest.fixture
def listener() -> "socket.socket":
    return socket.create_server((LOOPBACK, 0))


def test_port_is_free_after_listener_closes(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with listener:
        assert not is_free(port)
    assert is_free(port)


def test_picked_port_is_free_and_below_ephemeral_range() -> None:
    port = pick()
    assert is_free(port)
    assert port < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def test_name_keeps_its_port_between_runs(tmp_path: Path) -> None:
    first = KeptPorts(tmp_path / "ports.json")
    ports = {name: first.take(name) for name in ("amqp", "epmd")}
    second = KeptPorts(tmp_path / "ports.json")
    assert {name: second.take(name) for name in ports} == ports
    assert len(set(ports.values())) == 2


def test_occupied_kept_port_is_replaced_permanently(tmp_path: Path) -> None:
    port = KeptPorts(tmp_path / "ports.json").take("amqp")
    with socket.create_server((LOOPBACK, port)):
        replaced = KeptPorts(tmp_path / "ports.json").take("amqp")
    assert replaced != port
    assert KeptPorts(tmp_path / "ports.json").take("amqp") == replaced


@pytest.mark.parametrize("content", ["", "{", "[]", '{"amqp": "x"}', '{"amqp": 0}'])
def test_corrupt_file_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert is_free(KeptPorts(tmp_path / "ports.json").take("amqp"))


def test_occupied_gateway_port_names_port_and_setting(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with listener, pytest.raises(CannotClaim, match=rf"{port}.*GATEWAY_PORT"):
        claim_port("0.0.0.0", port)


def test_claimed_port_allows_reuseport_and_takes_no_connection() -> None:
    with claim_port(LOOPBACK, 0) as claim, socket.socket() as gateway:
        gateway.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        gateway.bind(claim.getsockname())
        gateway.listen()
        for _ in range(20):
            with socket.create_connection(gateway.getsockname(), 1.0):
                gateway.accept()[0].close()
        with pytest.raises(CannotClaim):
            claim_port(*claim.getsockname())


def test_directory_is_claimed_once(tmp_path: Path) -> None:
    claim_directory(tmp_path / "local")
    with pytest.raises(CannotClaim, match=r"kill \d+"):
        claim_directory(tmp_path / "local")
    assert (tmp_path / "local").stat().st_mode & 0o777 == 0o700


def test_unusable_directory_names_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotClaim, match="LOCAL_DIR"):
        claim_directory(tmp_path / "file" / "local")
