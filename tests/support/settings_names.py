"""The settings that each service reads, for checks of the deployment."""

import msgspec

from chat_service.settings import ChatSettings
from gateway.settings import GatewaySettings
from market_feed.settings import MarketSettings
from notifier.settings import NotifierSettings
from shared.process.settings import Settings

SETTINGS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "chat_service": ChatSettings,
    "market_feed": MarketSettings,
    "notifier": NotifierSettings,
}


def names(service: str) -> set[str]:
    """Return the variables that a service reads."""
    return {field.name.upper() for field in msgspec.structs.fields(SETTINGS[service])}


def default(service: str, name: str) -> object:
    """Return the default of a variable."""
    return next(field.default for field in msgspec.structs.fields(SETTINGS[service]) if field.name == name.lower())
