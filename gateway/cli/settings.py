"""Settings of the command line, from the environment or `.local/run.env`, which `make run` writes."""

from collections.abc import Mapping
from pathlib import Path

from shared.errors import SettingsInvalid
from shared.process.settings import FromEnvironment, load, read_env_file, url_problems

RUN_FILE = "run.env"


class CliSettings(FromEnvironment, frozen=True, kw_only=True):
    """Addresses and credentials. `realtime_token` takes precedence over a token signed with `jwt_secret`.

    `doctor` alone uses `mongodb_uri` and `admin_urls`, the addresses of the processes' admin servers.
    """

    gateway_url: str = "http://127.0.0.1:8080"
    amqp_url: str = "amqp://127.0.0.1/"
    mongodb_uri: str = ""
    mongodb_database: str = "realtime"
    admin_urls: tuple[str, ...] = ()
    realtime_token: str | None = None
    jwt_secret: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None

    def problems(self) -> list[str]:
        """Return every problem with the settings, one line each."""
        problems = url_problems("GATEWAY_URL", self.gateway_url, {"http", "https"})
        problems += url_problems("AMQP_URL", self.amqp_url, {"amqp", "amqps"})
        if self.mongodb_uri:
            problems += url_problems("MONGODB_URI", self.mongodb_uri, {"mongodb", "mongodb+srv"})
        for url in self.admin_urls:
            problems += url_problems("ADMIN_URLS", url, {"http", "https"})
        return problems


class _LocalDirectory(FromEnvironment, frozen=True, kw_only=True):
    local_dir: str = ".local"


def _admin_urls(entries: Mapping[str, str]) -> list[str]:
    return sorted({url for name, url in entries.items() if name.endswith("_ADMIN_URL")})


def read_settings() -> CliSettings:
    """Load the settings. Raises SettingsInvalid."""
    path = Path(load(_LocalDirectory).local_dir) / RUN_FILE
    try:
        found = read_env_file(path)
        return load(CliSettings, fallback=found | {"ADMIN_URLS": ",".join(_admin_urls(found))})
    except PermissionError as error:
        raise SettingsInvalid([f"{path}: belongs to another user; set GATEWAY_URL and REALTIME_TOKEN"]) from error
