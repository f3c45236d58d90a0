"""The Compose file and its images, and the few changes with which Debian's versions stand in for them."""

from deploy.local.settings import PROJECT
from shared.process.settings import read_env_file

DIRECTORY = PROJECT / "deploy" / "container"


def images() -> dict[str, str]:
    """Return the images by the names of their variables."""
    lines = read_env_file(DIRECTORY / ".env")
    return {name: value for name, value in lines.items() if name.endswith("_IMAGE")}


def replaced_images() -> dict[str, str]:
    """Return the image names under which Debian's versions are built."""
    found = images()
    return {
        "rabbitmq": found["RABBITMQ_IMAGE"].partition("@")[0],
        "haproxy": found["HAPROXY_IMAGE"].partition("@")[0],
        "prometheus": found["PROMETHEUS_IMAGE"].partition("@")[0],
    }
