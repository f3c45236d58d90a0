"""The command of one child process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Program and arguments, the complete environment (nothing is inherited), and the working directory."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
