"""Images of broker, database, load balancer and Prometheus from Debian's packages, where no registry is reachable.

They have the names that the Compose file uses, so that it runs unchanged where its images can be pulled.
"""

import tomllib

from deploy.bootstrap import stop
from deploy.container import debian_root, image
from deploy.container.engine import Engine
from deploy.local.settings import PROJECT

SERVERS = "servers:local"
DATABASE = "database:local"
RABBITMQ = "rabbitmq-of-debian:local"

_RABBITMQ = """\
ENV PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
RUN usermod --uid 999 rabbitmq && groupmod --gid 999 rabbitmq && rm -rf /var/lib/rabbitmq && mkdir -p /etc/rabbitmq \\
 && install -d -o 999 -g 999 /var/lib/rabbitmq /var/lib/rabbitmq/mnesia && chown 999:999 /etc/rabbitmq /var/log/rabbitmq
USER 999:999
CMD ["rabbitmq-server"]
"""
_HAPROXY = """\
USER 99:99
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""
_PROMETHEUS = """\
RUN mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]
"""
_DATABASE = """\
RUN mkdir -p /data/db && touch /data/secantusd.toml && chown -R 999:999 /data
USER 999:999
CMD ["/opt/database/bin/python", "/opt/database/bin/secantusd-rs", "--storage-path", "/data/db", "--host", "0.0.0.0", \
"--port", "27017", "--config", "/data/secantusd.toml", "--log-level", "WARNING", "--sync-on-commit", \
"--log-file-max", "16M", "--cache-size", "256M"]
"""
DERIVED = {"rabbitmq": _RABBITMQ, "haproxy": _HAPROXY, "prometheus": _PROMETHEUS}


def database_package() -> str:
    """Return the requirement of the database that `make run` uses."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (package,) = extras["local"]
    return str(package)


def build(on: Engine, names: dict[str, str]) -> None:
    """Build the servers under the image names that `names` maps to rabbitmq, haproxy and prometheus."""
    if on.directory is None:
        stop("these tests replace images by Debian's versions: they run only on a private engine")
    base = image.base_images()[0]
    debian_root.provide(on, base)
    instructions = (
        f"FROM {base}\n"
        "RUN apt-get update -q"
        " && apt-get install -y -q --no-install-recommends rabbitmq-server haproxy prometheus wget\n"
        f"RUN python -m venv /opt/database && /opt/database/bin/pip install {database_package()}\n"
    )
    _build(on, SERVERS, instructions)
    _build(on, DATABASE, f"FROM {SERVERS}\n{_DATABASE}")
    _build(on, RABBITMQ, f"FROM {SERVERS}\n{_RABBITMQ}")
    for server, name in names.items():
        _build(on, name, f"FROM {SERVERS}\n{DERIVED[server]}")


def _build(on: Engine, tag: str, instructions: str) -> None:
    on.run_or_stop(f"building {tag}", "build", "--network", "host", "--tag", tag, "-", stdin=instructions)
