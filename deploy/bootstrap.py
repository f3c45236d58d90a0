"""Preparation of a bare machine with the system's Python alone; the Makefile runs it before `.venv` exists.

`bootstrap.py environment .venv run` creates the virtual environment and installs what the system needs to run,
`bootstrap.py environment .venv test` the test tools as well. `bootstrap.py broker` installs RabbitMQ, `bootstrap.py
tools` the programs that some tests need; both leave nothing running.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

POLICY = Path("/usr/sbin/policy-rc.d")
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
SYSTEM_UNITS = ("rabbitmq-server.service", "epmd.service", "epmd.socket")
TOOLS = {
    "haproxy": Path("/usr/sbin/haproxy"),
    "prometheus": Path("/usr/bin/promtool"),
    "chromium": Path("/usr/bin/chromium"),
    "fonts-inter": Path("/usr/share/fonts/opentype/inter"),  # the page's preferred font
}
QUIETLY = ("--quiet", "--disable-pip-version-check")
QUOTED_LINES = 30


def main(arguments: Sequence[str]) -> None:
    """Run a command; every failure is one message and exit code 1."""
    # Run `finally` blocks on SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    match arguments:
        case ["environment", directory, ("run" | "test") as purpose]:
            make_environment(Path(directory), purpose)
        case ["broker"]:
            install_broker()
        case ["tools"]:
            install_tools()
        case _:
            stop(__doc__ or "")


def make_environment(directory: Path, purpose: str) -> None:
    """Install the project into the virtual environment `directory` to `run` it or to `test` it.

    A missing, moved or broken environment is recreated. The stamp of each purpose names the directory of the
    checkout.
    """
    stamp, extras = {"run": (".runs", "local"), "test": (".installed", "local,dev")}[purpose]
    python = directory / "bin" / "python"
    here = os.getcwd()
    if not (stamped(directory / ".runs", here) and succeeds(python, "-m", "pip", "--version")):
        if importlib.util.find_spec("ensurepip") is None:
            package = f"python3.{sys.version_info.minor}-venv"
            install_package(package, f"sudo apt-get install -y {package}")
        say(f"creating {directory}")
        run_or_stop([sys.executable, "-m", "venv", "--clear", str(directory)])
    say(f"installing the packages to {purpose} the project into {directory}")
    (directory / stamp).unlink(missing_ok=True)
    run_or_stop(
        [str(python), "-m", "pip", "install", *QUIETLY, "-c", "deploy/container/constraints.txt", "-e", f".[{extras}]"]
    )
    (directory / stamp).write_text(here + "\n")


def stamped(stamp: Path, here: str) -> bool:
    """Return whether an installation into the checkout `here` was completed."""
    return stamp.exists() and stamp.read_text().strip() == here


def install_broker() -> None:
    """Install RabbitMQ without leaving a broker running, now or after a reboot: each run starts its own."""
    if RABBITMQ_SERVER.exists():
        return
    with services_kept_from_starting():
        install_package("rabbitmq-server", "sudo make broker")
    if shutil.which("systemctl"):
        execute(["systemctl", "disable", "--quiet", *SYSTEM_UNITS])
    if not RABBITMQ_SERVER.exists():
        stop(f"the package rabbitmq-server is installed, but {RABBITMQ_SERVER} is missing")


def install_tools() -> None:
    """Install the programs that some tests need, without starting them.

    Without root, print the command to run; those tests are skipped.
    """
    missing = [package for package, program in TOOLS.items() if not program.exists()]
    if missing and os.geteuid() != 0:
        say(f"{' and '.join(missing)} missing: tests that need them are skipped. To install: sudo make tools")
        return
    for package in missing:
        with services_kept_from_starting():
            install_package(package, "sudo make tools")
        if shutil.which("systemctl"):
            execute(["systemctl", "disable", "--quiet", f"{package}.service"])


@contextlib.contextmanager
def services_kept_from_starting(policy: Path = POLICY) -> Iterator[None]:
    """Prevent package scripts from starting services. An existing policy of the machine is kept."""
    try:
        descriptor = os.open(policy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except (FileExistsError, PermissionError):
        yield
        return
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        yield
    finally:
        policy.unlink()


def install_package(package: str, command: str) -> None:
    """Install a Debian package as root, or exit and name the `command` to run."""
    if shutil.which("apt-get") is None:
        stop(f"{package} is missing, and apt-get is not available to install it")
    if os.geteuid() != 0:
        stop(f"{package} is missing and can only be installed as root; please run:\n\n    {command}\n")
    say(f"installing the system package {package} with apt-get")
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends", package]
    if not succeeds(*install):
        run_or_stop(["apt-get", "update", "-q"])
        run_or_stop(install)


def succeeds(*command: str | Path) -> bool:
    """Run a command silently, and return whether it could be run and succeeded."""
    try:
        return execute(command).returncode == 0
    except OSError:
        return False


def run_or_stop(command: Sequence[str]) -> None:
    """Run a command silently; exit with the end of its output if it fails."""
    result = execute(command)
    if result.returncode != 0:
        stop("\n".join(["failed: " + " ".join(command), *result.stdout.splitlines()[-QUOTED_LINES:]]))


def execute(command: Sequence[str | Path]) -> "subprocess.CompletedProcess[str]":
    """Run a command and return its result with the combined output."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(  # noqa: S603 - all commands are defined in this file
        command,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def say(message: str) -> None:
    """Print a progress message."""
    print(f"setup: {message}", file=sys.stderr, flush=True)


def stop(message: str) -> NoReturn:
    """Print a message and exit with code 1."""
    sys.exit(f"setup: {message}")


if __name__ == "__main__":
    main(sys.argv[1:])
