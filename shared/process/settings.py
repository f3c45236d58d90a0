"""Settings: typed, read from the environment once; every invalid one is reported.

A service's settings are a frozen `msgspec.Struct`: the field `gateway_port` is the variable `GATEWAY_PORT`. An empty
variable counts as absent. A field's range is in its `Annotated[..., msgspec.Meta(...)]`. A secret may also come from a
file: `AMQP_URL_FILE` names one with the value of `AMQP_URL`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from shared.errors import SettingsInvalid
from shared.telemetry.redaction import redacted

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]

SECRET_FIELDS = frozenset({"jwt_secret", "amqp_url", "mongodb_uri"})

_NOTHING: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T", bound="FromEnvironment")


class FromEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """A struct that `load` fills."""

    def problems(self) -> list[str]:
        """Return the problems that cross-field checks find. Subclasses add their own checks."""
        return []


class Settings(FromEnvironment, frozen=True, kw_only=True):
    """The settings of every service. docs/settings.md documents the upper-case names."""

    amqp_url: str
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    admin_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapers come from other hosts
    drain_timeout_s: Seconds = 25.0
    request_timeout_s: Seconds = 5.0
    otel_exporter_otlp_endpoint: str = ""  # such as http://collector:4318; empty: no traces

    def problems(self) -> list[str]:
        """Return the invalid URLs."""
        problems = url_problems("AMQP_URL", self.amqp_url, {"amqp", "amqps"})
        if self.otel_exporter_otlp_endpoint:
            collector = self.otel_exporter_otlp_endpoint
            problems += url_problems("OTEL_EXPORTER_OTLP_ENDPOINT", collector, {"http", "https"})
        return problems


class WorkerSettings(Settings, frozen=True, kw_only=True):
    """Additional settings of the services with a database."""

    mongodb_uri: str
    mongodb_database: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,63}$")] = "realtime"

    def problems(self) -> list[str]:
        """Return the base problems, and an invalid database URL."""
        return super().problems() + url_problems("MONGODB_URI", self.mongodb_uri, {"mongodb", "mongodb+srv"})


def shown_settings(settings: FromEnvironment) -> dict[str, str]:
    """Return the settings by variable, as they would be set, without those that hold a secret."""
    return {
        field.name.upper(): _text_of(getattr(settings, field.name))
        for field in msgspec.structs.fields(settings)
        if field.name not in SECRET_FIELDS
    }


def _text_of(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case tuple():
            return ",".join(map(str, value))
        case _:
            return redacted(str(value))


def url_problems(name: str, url: str, schemes: set[str]) -> list[str]:
    """Return the problems of a URL, without quoting it, since it may hold a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme in schemes and parts.hostname:
            return []
    except ValueError:
        pass
    return [f"{name}: must be a URL that starts with {' or '.join(sorted(f'{s}://' for s in schemes))}"]


def read_env_file(path: Path) -> dict[str, str]:
    """Return the KEY=value lines of a file; none if it does not exist. Raises PermissionError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def load(settings: type[T], environ: Mapping[str, str] = os.environ, *, fallback: Mapping[str, str] = _NOTHING) -> T:
    """Read `settings` from the environment, or from `fallback` where the environment sets nothing.

    Raises SettingsInvalid with one line per invalid variable.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in msgspec.structs.fields(settings):
        name = field.name.upper()
        text = environ.get(name, "").strip() or fallback.get(name, "").strip()
        if field.name in SECRET_FIELDS and (file := environ.get(f"{name}_FILE", "").strip()):
            text, problem = _read_secret(name, text, Path(file))
            if problem:
                problems.append(problem)
                continue
        if not text:
            if field.required:
                problems.append(f"{name}: is not set")
            continue
        try:
            values[field.name] = _convert(text, field.type)
        except (msgspec.ValidationError, ValueError) as error:
            shown = "" if field.name in SECRET_FIELDS else f" (got {text!r})"
            problems.append(f"{name}: {error}{shown}")
    # Invalid fields get their default or an empty text, so that the cross-field checks always run.
    named = {problem.partition(":")[0] for problem in problems}
    unset: dict[str, Any] = {
        field.name: "" for field in msgspec.structs.fields(settings) if field.required and field.name not in values
    }
    loaded = settings(**unset, **values)
    problems += [problem for problem in loaded.problems() if problem.partition(":")[0] not in named]
    if problems:
        raise SettingsInvalid(problems)
    return loaded


def _read_secret(name: str, text: str, file: Path) -> tuple[str, str]:
    """Return the value in a secret's file, and the problem with it or an empty text."""
    if text:
        return "", f"{name}: set it or {name}_FILE, not both"
    try:
        content = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return "", f"{name}: cannot read {name}_FILE: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}"
    return content, "" if content else f"{name}: {name}_FILE names an empty file"


def revision() -> str:
    """Return the commit that the image was built from; `unknown` where no image sets `REVISION`."""
    return os.environ.get("REVISION") or "unknown"


def parts_of(text: str) -> tuple[str, ...]:
    """Return the parts of a text that commas separate, without outer blanks and empty parts."""
    return tuple(stripped for part in text.split(",") if (stripped := part.strip()))


def _convert(text: str, kind: object) -> object:
    """Convert one variable's text to its field's type; commas separate a list."""
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise ValueError("must be 1 or 0")
    if getattr(kind, "__origin__", None) is tuple:
        return msgspec.convert(parts_of(text), kind, strict=False)
    return msgspec.convert(text, kind, strict=False)
