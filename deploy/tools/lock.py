"""Print the exact version of every runtime dependency: the content of `deploy/container/constraints.txt`.

`make lock` writes the file; `make test` installs with it and checks that it is complete; the image is built from it
alone.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT_NAME = "realtime"
EXTRAS = frozenset({"tracing"})  # in the image too: OTEL_EXPORTER_OTLP_ENDPOINT needs it
HEADER = "# Written by `make lock`: the versions that the services are tested with and the image is built from.\n"


def needed(name: str = PROJECT_NAME, extras: frozenset[str] = EXTRAS) -> Iterator[tuple[str, str]]:
    """Yield name and version of every runtime dependency, possibly more than once."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is not None and not any(map(requirement.marker.evaluate, environments)):
            continue
        yield canonicalize_name(requirement.name), distribution(requirement.name).version
        yield from needed(requirement.name, frozenset(requirement.extras))


def constraints() -> str:
    """Return the content of the file."""
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(set(needed())))


if __name__ == "__main__":
    sys.stdout.write(constraints())
