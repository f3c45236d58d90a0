"""Build the image with whatever engine answers, else with a private one: `make image`."""

import re
import subprocess
from datetime import UTC, datetime

from deploy.container import debian_root
from deploy.container.engine import Engine, engine
from deploy.local.settings import PROJECT
from shared.version import VERSION

TAG = "realtime:local"
DOCKERFILE = PROJECT / "deploy" / "container" / "Dockerfile"


def base_images() -> list[str]:
    """Return the images on which the Dockerfile builds, each once, without digests."""
    named = re.findall(r"^FROM ([^\s@]+)", DOCKERFILE.read_text(), re.MULTILINE)
    return list(dict.fromkeys(named))


def build(on: Engine, tag: str = TAG) -> None:
    """Build the image and name it `tag`. Exits with the engine's output if that fails."""
    for base in base_images():
        debian_root.provide(on, base)
    arguments = [word for name, value in build_arguments().items() for word in ("--build-arg", f"{name}={value}")]
    command = ["build", "--tag", tag, *arguments]
    if on.directory is None:
        on.run_or_stop(f"building {tag}", *command, "--file", str(DOCKERFILE), str(PROJECT))
        return
    # A base image made here has no digest of a registry.
    instructions = re.sub(r"^(FROM [^\s@]+)@\S+", r"\1", DOCKERFILE.read_text(), flags=re.MULTILINE)
    on.run_or_stop(f"building {tag}", *command, "--network", "host", "--file", "-", str(PROJECT), stdin=instructions)


def build_arguments() -> dict[str, str]:
    """Return version, revision, time and origin of the checkout."""
    changed = "-changed" if _git("status", "--porcelain", "--untracked-files=no") else ""
    revision = _git("rev-parse", "HEAD")
    return {
        "VERSION": VERSION,
        "REVISION": f"{revision}{changed}" if revision else "",
        "CREATED": datetime.now(UTC).isoformat(timespec="seconds"),
        "SOURCE": without_credentials(_git("remote", "get-url", "origin")),
    }


def without_credentials(url: str) -> str:
    """Return a repository's address without user and password."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url)


def _git(*arguments: str) -> str:
    """Return the output of a git command; an empty text outside a repository."""
    try:
        ended = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except OSError:
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def main() -> None:
    """Build the image and say where it is."""
    with engine() as on:
        build(on)
        identifier = on.run("image", "inspect", "--format", "{{.Id}}", TAG)
        place = "" if on.directory is None else f", in the private Docker engine under {on.directory}"
        print(f"{TAG} is {identifier}{place}")


if __name__ == "__main__":
    main()
