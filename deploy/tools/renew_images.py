"""Move every pinned image to the newest release of its line, and pin it by digest.

`python -m deploy.tools.renew_images` rewrites `deploy/container/.env`, the base images of the Dockerfile, and the
images in the Kubernetes overlays. A line is the tag without its last number: `rabbitmq:4.2.5` becomes 4.2.6, never
4.3.0, which is a decision of its own. It needs a reachable registry, and exits without a change if one does not answer.
"""

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

DEPLOY = Path(__file__).parents[1]
OVERLAYS = DEPLOY / "k8s" / "overlays"
FILES = (
    DEPLOY / "container" / ".env",
    DEPLOY / "container" / "Dockerfile",
    OVERLAYS / "dev" / "rabbitmq.yaml",
    OVERLAYS / "dev" / "mongodb.yaml",
    OVERLAYS / "prod" / "rabbitmq.yaml",
)
DEFAULT_REGISTRY = "https://registry-1.docker.io"
TIMEOUT_S = 20.0
ACCEPTED = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"

_PINNED = re.compile(
    r"(?<=[= ])(?P<name>[a-z][a-z0-9._/-]*):(?P<tag>v?\d+\.\d+\.\d+[\w.-]*)(@sha256:[0-9a-f]{64})?(?=\s|$)"
)
_TAG = re.compile(r"(?P<line>v?\d+\.\d+)\.(?P<patch>\d+)(?P<suffix>[\w.-]*)")


class Image(NamedTuple):
    """A repository and a tag, such as `library/rabbitmq` and 4.2.5."""

    repository: str
    tag: str


class RegistryUnavailable(Exception):
    """The registry did not answer, or not as expected."""


class ImageRegistry:
    """The read calls of a registry that the renewal needs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def tags(self, repository: str) -> list[str]:
        """Return all tags of a repository. Raises RegistryUnavailable."""
        found: list[str] = []
        path: str | None = f"/v2/{repository}/tags/list?n=1000"
        while path is not None:
            body, headers = self._get(path, repository)
            found += json.loads(body).get("tags") or []
            following = re.search(r"<([^>]+)>; *rel=\"?next", headers.get("Link") or "")
            path = following[1] if following else None
        return found

    def digest(self, image: Image) -> str:
        """Return the digest of a tag, for all platforms. Raises RegistryUnavailable."""
        _, headers = self._get(f"/v2/{image.repository}/manifests/{image.tag}", image.repository)
        digest = headers.get("Docker-Content-Digest") or ""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise RegistryUnavailable(f"no digest for {image.repository}:{image.tag}")
        return digest

    def _get(self, path: str, repository: str) -> tuple[bytes, Any]:
        """Return body and headers; fetch an anonymous token if the registry asks for one."""
        address = urllib.parse.urljoin(self._url, path)
        try:
            try:
                return _fetch(address)
            except urllib.error.HTTPError as error:
                if error.code != 401:
                    raise
                return _fetch(address, _anonymous_token(error.headers.get("WWW-Authenticate") or "", repository))
        except (OSError, ValueError) as error:
            raise RegistryUnavailable(f"{address}: {error}") from error


def _fetch(address: str, token: str | None = None) -> tuple[bytes, Any]:
    headers = {"Accept": ACCEPTED} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - addresses of registries
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        return response.read(), response.headers


def _anonymous_token(challenge: str, repository: str) -> str:
    """Return a token from the realm that a registry's challenge names. Raises ValueError without one."""
    named = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in named:
        raise ValueError("the registry names no realm for tokens")
    query = urllib.parse.urlencode(
        {"service": named.get("service", ""), "scope": f"repository:{repository}:pull"},
    )
    body, _ = _fetch(f"{named['realm']}?{query}")
    answer = json.loads(body)
    return str(answer.get("token") or answer["access_token"])


def repository_of(name: str) -> str:
    """Return the repository of an image name: `rabbitmq` is `library/rabbitmq`."""
    return name if "/" in name else f"library/{name}"


def newest(tag: str, known: Iterable[str]) -> str:
    """Return the newest tag of the line, with the same suffix; `tag` itself if none is newer."""
    own = _TAG.fullmatch(tag)
    if own is None:
        return tag
    found = [match for match in map(_TAG.fullmatch, known) if match is not None]
    same_line = [match for match in found if (match["line"], match["suffix"]) == (own["line"], own["suffix"])]
    return max([own, *same_line], key=lambda match: int(match["patch"]))[0]


def renewed(text: str, pin: Callable[[Image], str]) -> str:
    """Return a file's text with every pinned image replaced; `pin` returns tag and digest."""

    def replace(match: "re.Match[str]") -> str:
        return f"{match['name']}:{pin(Image(repository_of(match['name']), match['tag']))}"

    lines = text.splitlines(keepends=True)
    return "".join(line if line.startswith("#") else _PINNED.sub(replace, line) for line in lines)


def renew(files: Iterable[Path], registry: ImageRegistry) -> list[str]:
    """Rewrite the files and return the pinned images. Raises RegistryUnavailable before the first change."""
    pinned: dict[Image, str] = {}

    def pin(image: Image) -> str:
        if image not in pinned:
            tag = newest(image.tag, registry.tags(image.repository))
            pinned[image] = f"{tag}@{registry.digest(Image(image.repository, tag))}"
        return pinned[image]

    texts = {path: renewed(path.read_text(), pin) for path in files}
    for path, text in texts.items():
        path.write_text(text)
    return [f"{image.repository}:{tag}" for image, tag in pinned.items()]


def main() -> None:
    """Renew the files and print the images."""
    try:
        print("\n".join(renew(FILES, ImageRegistry(DEFAULT_REGISTRY))))
    except RegistryUnavailable as error:
        sys.exit(f"renew_images: nothing was changed, the registry did not answer: {error}")


if __name__ == "__main__":
    main()
