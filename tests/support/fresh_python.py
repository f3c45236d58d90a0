"""Virtual environments that hold nothing of the project."""

import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local.settings import PROJECT

TIMEOUT_S = 240.0


class FreshPython:
    """An empty virtual environment in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "bin" / "python"
        _run([sys.executable, "-m", "venv", "--without-pip", str(directory)])

    def install(self, *arguments: str) -> None:
        """Install packages with the pip of this process; fails the test with pip's output."""
        _run([sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", *arguments])


def build_wheel(project: Path, directory: Path) -> Path:
    """Build the wheel of the project in `project`, from a copy, and return its path."""
    source = shutil.copytree(project, directory / "source", ignore=shutil.ignore_patterns("__pycache__"))
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(source)])
    (wheel,) = directory.glob("*.whl")
    return wheel


def _run(command: list[str]) -> None:
    result = subprocess.run(
        command,
        cwd=PROJECT.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stdout[-4000:]
