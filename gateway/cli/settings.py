"""Settings of the command line, from the environment or `.local/run.env`, which `make run` writes."""

from pathlib import Path

from shared.errors import SettingsInvalid
from shared.process.settings import FromEnvironment, load, read_env_file, url_problems

RUN_FILE = "run.env"


class CliSettings(FromEnvironment, frozen=True, kw_only=True):
    """Addresses and credentials. `realtime_token` takes precedence over a token signed with `jwt_secret`."""

    gateway_url: str = "http://127.0.0.1:8080"
    amqp_url: str = "amqp://127.0.0.1/"
    realtime_token: str | None = None
    jwt_secret: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None

    def problems(self) -> list[str]:
        """Return every problem with the settings, one line each."""
        return [
            *url_problems("GATEWAY_URL", self.gateway_url, {"http", "https"}),
            *url_problems("AMQP_URL", self.amqp_url, {"amqp", "amqps"}),
        ]


class _LocalDirectory(FromEnvironment, frozen=True, kw_only=True):
    local_dir: str = ".local"


def read_settings() -> CliSettings:
    """Load the settings. Raises SettingsInvalid."""
    path = Path(load(_LocalDirectory).local_dir) / RUN_FILE
    try:
        return load(CliSettings, fallback=read_env_file(path))
    except PermissionError as error:
        raise SettingsInvalid([f"{path}: belongs to another user; set GATEWAY_URL and REALTIME_TOKEN"]) from error
