"""A Kubernetes API server with its etcd on loopback ports, built from its Go modules.

    with ApiServer(directory) as server:
        server.kubectl("apply", "--server-side", "-k", "deploy/k8s/overlays/dev")

Nothing runs what is applied: there are no controllers and no nodes.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local.command import SYSTEM_PATH, CommandLine
from deploy.local.settings import PROJECT
from tests.support.server_process import ServerProcess
from tests.support.services import free_port
from tests.support.startable import Startable

MODULES = Path(__file__).parent / "server"
PROGRAMS = {"etcd": "go.etcd.io/etcd/server/v3", "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"}
GO = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "realtime"
KUBECTL = Path(sys.executable).parent / "kubectl"
BUILD_TIMEOUT_S = 3600.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
PROBE_TIMEOUT_S = 2.0
KUBECTL_TIMEOUT_S = 120.0


def built_programs() -> Path:
    """Return the directory of both programs, which are built once for each set of module versions.

    The build takes 12 minutes of CPU time the first time.
    """
    assert GO is not None
    sums = (MODULES / "go.sum").read_bytes()
    directory = CACHE / f"kubernetes-{hashlib.sha256(sums).hexdigest()[:12]}"
    directory.mkdir(parents=True, exist_ok=True)
    for name, package in PROGRAMS.items():
        if not (directory / name).exists():
            _build(package, directory / name)
    return directory


def _build(package: str, program: Path) -> None:
    """Build a program, in a place of its own until it is complete."""
    assert GO is not None
    unfinished = program.with_name(f"{program.name}.{os.getpid()}")
    version = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", (MODULES / "go.mod").read_text())
    assert version is not None
    stamped = {"gitVersion": version[1], "gitMajor": version[2], "gitMinor": version[3]}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamped.items())
    command = (GO, "build", "-C", str(MODULES), "-p", "1", "-trimpath", "-ldflags", f"-s -w {flags}")
    subprocess.run(("nice", "-n", "10", *command, "-o", str(unfinished), package), check=True, timeout=BUILD_TIMEOUT_S)
    unfinished.rename(program)


class ApiServer(Startable):
    """The API server with its etcd."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        programs = built_programs()
        token = secrets.token_hex(16)
        (directory / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (directory / "service-accounts.pem").write_bytes(pem)
        etcd_url, peer_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self._etcd_url = etcd_url
        self._configuration = directory / "kubeconfig.json"
        self._configuration.write_text(json.dumps(_configuration(self.url, token, directory / "certificates")))
        etcd = (f"{programs / 'etcd'}", *_etcd_flags(directory / "etcd", etcd_url, peer_url))
        server = (f"{programs / 'kube-apiserver'}", *_server_flags(directory, etcd_url, port))
        environment = {"PATH": SYSTEM_PATH}
        self._etcd = ServerProcess(CommandLine(etcd, environment, directory), directory / "etcd.out")
        self._server = ServerProcess(CommandLine(server, environment, directory), directory / "server.out")

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Return the result of kubectl, with `text` as its standard input."""
        home = {"PATH": SYSTEM_PATH, "HOME": str(self._directory), "KUBECONFIG": str(self._configuration)}
        return subprocess.run(
            (str(KUBECTL), *arguments),
            input=text,
            env=home,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=KUBECTL_TIMEOUT_S,
        )

    def _etcd_is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._etcd_url}/health", timeout=PROBE_TIMEOUT_S) as response:
                return bool(json.load(response)["health"] == "true")
        except OSError:
            return False

    def _is_ready(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz").returncode == 0

    def start(self) -> None:
        """Start etcd, then the server, and return once it is ready."""
        self._etcd.start()
        self._etcd.wait_until(self._etcd_is_ready, START_TIMEOUT_S)
        self._server.start()
        self._server.wait_until(self._is_ready, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop the server, then its etcd."""
        self._server.stop(STOP_TIMEOUT_S)
        self._etcd.stop(STOP_TIMEOUT_S)


def _etcd_flags(directory: Path, client_url: str, peer_url: str) -> tuple[str, ...]:
    return (
        f"--data-dir={directory}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
    )


def _server_flags(directory: Path, etcd_url: str, port: int) -> tuple[str, ...]:
    key = directory / "service-accounts.pem"
    return (
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certificates'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
    )


def _configuration(url: str, token: str, certificates: Path) -> dict[str, object]:
    """Return a kubectl configuration. The server writes its own certificate at its first start."""
    cluster = {"server": url, "certificate-authority": str(certificates / "apiserver.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
        "current-context": "local",
    }
