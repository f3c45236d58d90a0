"""A container engine: the machine's own, or a private Docker engine that ends with the program.

The private engine needs root and Debian's packages. It keeps its images in a directory of its own, changes no firewall
rule, and gives containers no way out; builds use the host's network.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deploy.bootstrap import install_package, say, services_kept_from_starting, stop

NAMES = ("docker", "podman", "nerdctl", "buildah")
PACKAGES = {
    "docker.io": Path("/usr/sbin/dockerd"),
    "iptables": Path("/usr/sbin/iptables"),
    "mmdebstrap": Path("/usr/bin/mmdebstrap"),
}
ANSWER_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
SHOWN_LINES = 40


class Engine(NamedTuple):
    """A command that accepts Docker's arguments. `directory` is set for a private engine."""

    command: str
    environment: Mapping[str, str]
    directory: Path | None = None

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run a command and return its output. Raises CalledProcessError and TimeoutExpired."""
        ended = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        ended.check_returncode()
        return ended.stdout.strip()

    def attempt(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command and return its result."""
        return subprocess.run(  # noqa: S603 - all commands are those of this project
            [self.command, *arguments],
            env=dict(self.environment),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def run_or_stop(self, what: str, *arguments: str, stdin: str | None = None, timeout_s: float = 1200.0) -> str:
        """Run a long command; exit with the end of its output if it fails."""
        say(what)
        ended = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        if ended.returncode != 0:
            lines = (ended.stdout + ended.stderr).splitlines()[-SHOWN_LINES:]
            stop("\n".join([f"failed: {what}", *lines]))
        return ended.stdout.strip()

    def has_image(self, name: str) -> bool:
        """Return whether an image of this name is stored."""
        return bool(self.run("image", "ls", "--quiet", name))


def answering_engine() -> Engine | None:
    """Return the first of docker, podman, nerdctl and buildah that answers."""
    for name in NAMES:
        if shutil.which(name) is None:
            continue
        engine = Engine(name, os.environ)
        try:
            if engine.attempt("info", timeout_s=ANSWER_TIMEOUT_S).returncode == 0:
                return engine
        except subprocess.TimeoutExpired:
            continue
    return None


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield the machine's engine; without one, a private engine for the duration of the block."""
    found = answering_engine()
    if found is not None:
        yield found
        return
    with private_engine(private_directory()) as started:
        yield started


def private_directory() -> Path:
    """Return the directory of the private engine: CONTAINERS_DIR, or one in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CONTAINERS_DIR") or Path(cache) / "realtime" / "containers")


@contextmanager
def private_engine(directory: Path) -> Iterator[Engine]:
    """Run a Docker engine in `directory`; it and its containers end with the block. Needs root."""
    _install_packages()
    (directory / "config").mkdir(parents=True, exist_ok=True)
    started = Engine("docker", _environment(directory), directory)
    log = directory / "engine.log"
    say(f"starting a private Docker engine in {directory}")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            _command(directory), stdout=output, stderr=output, start_new_session=True, env=dict(os.environ)
        )
    try:
        _wait_until_answering(started, process, log)
        _remove_leftovers(started)  # of a run that was killed
        yield started
    finally:
        _end(started, process)


def _install_packages() -> None:
    for package, program in PACKAGES.items():
        if not program.exists():
            with services_kept_from_starting():
                install_package(package, f"sudo apt-get install -y {package}")
    if os.geteuid() != 0:
        stop("no container engine answers, and starting one needs root: sudo make image")


def _environment(directory: Path) -> dict[str, str]:
    """Return the variables with which the client finds this engine. The classic builder needs no plugin."""
    return {
        **os.environ,
        "DOCKER_HOST": f"unix://{directory / 'docker.sock'}",
        "DOCKER_CONFIG": str(directory / "config"),
        "DOCKER_BUILDKIT": "0",
    }


def _command(directory: Path) -> list[str]:
    return [
        str(PACKAGES["docker.io"]),
        *("--host", f"unix://{directory / 'docker.sock'}"),
        *("--data-root", str(directory / "data")),
        *("--exec-root", str(directory / "exec")),
        *("--pidfile", str(directory / "docker.pid")),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]


def _wait_until_answering(started: Engine, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        if started.attempt("info", timeout_s=ANSWER_TIMEOUT_S).returncode == 0:
            return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    stop("\n".join(["the Docker engine did not start", *lines]))


def _remove_leftovers(started: Engine) -> None:
    """Remove all containers, networks and volumes: nobody else uses this engine."""
    if containers := started.run("ps", "--all", "--quiet").split():
        started.run("rm", "--force", "--volumes", *containers, timeout_s=STOP_TIMEOUT_S)
    started.run("network", "prune", "--force")
    if volumes := started.run("volume", "ls", "--quiet").split():
        started.run("volume", "rm", *volumes)


def _end(started: Engine, process: "subprocess.Popen[bytes]") -> None:
    try:
        if process.poll() is None:
            _remove_leftovers(started)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"setup: could not remove everything from the engine: {error}", file=sys.stderr)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
