"""Settings of `make run`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local.ports import LOOPBACK

PROJECT = Path(__file__).resolve().parents[2]


class InvalidSettings(Exception):
    """One line per invalid setting."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Number of processes, their addresses, and existing servers to use instead of private ones."""

    directory: Path
    gateways: int
    chat_services: int
    market_feeds: int
    notifiers: int
    gateway_host: str
    gateway_port: int
    first_admin_port: int
    amqp_url: str | None
    mongodb_uri: str | None
    mongodb_database: str
    any_gateway_port: bool = False  # GATEWAY_PORT is unset: use another port if this one is taken


def read_settings(environment: Mapping[str, str]) -> LocalSettings:
    """Read and validate all settings. An empty value counts as unset. Raises InvalidSettings with every problem."""
    wrong: list[str] = []

    def text(name: str, default: str) -> str:
        return environment.get(name) or default

    def number(name: str, default: int, highest: int) -> int:
        value = text(name, str(default))
        if value.isdecimal() and int(value) <= highest:
            return int(value)
        wrong.append(f"{name}={value} is not a number from 0 to {highest}")
        return default

    settings = LocalSettings(
        directory=Path(text("LOCAL_DIR", str(PROJECT / ".local"))).resolve(),
        gateways=number("GATEWAYS", 2, 64),
        chat_services=number("CHAT_SERVICES", 1, 64),
        market_feeds=number("MARKET_FEEDS", 1, 64),
        notifiers=number("NOTIFIERS", 1, 64),
        gateway_host=text("GATEWAY_HOST", LOOPBACK),
        gateway_port=number("GATEWAY_PORT", 8080, 65_535),
        first_admin_port=number("ADMIN_PORT", 9100, 65_000),
        amqp_url=environment.get("AMQP_URL") or None,
        mongodb_uri=environment.get("MONGODB_URI") or None,
        mongodb_database=text("MONGODB_DATABASE", "realtime"),
        any_gateway_port=not environment.get("GATEWAY_PORT"),
    )
    if wrong:
        raise InvalidSettings("\n".join(wrong))
    return settings
