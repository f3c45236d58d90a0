"""Rates and bounds of users: the contract's, and ones so high that a test about something else never meets them.

The test systems have the high ones unless a test names others.
"""

from typing import Any

import msgspec

from chat_service.settings import ChatSettings
from gateway.settings import GatewaySettings

NEVER_MET = 1_000_000
OF_CHAT = (
    "rate_room_creations_per_hour",
    "rate_joins_per_minute",
    "rate_invitations_per_hour",
    "rate_stranger_messages_per_hour",
    "rate_changes_per_minute",
    "rooms_created_max",
    "rooms_joined_max",
)
OF_GATEWAY = ("rate_signals_per_minute", "rate_subscribes_per_minute", "rate_reads_per_minute")

HIGH_CHAT_LIMITS: dict[str, Any] = dict.fromkeys(OF_CHAT, NEVER_MET)
HIGH_GATEWAY_LIMITS: dict[str, Any] = dict.fromkeys(OF_GATEWAY, NEVER_MET)
HIGH_LIMITS = {name.upper(): str(NEVER_MET) for name in (*OF_CHAT, *OF_GATEWAY)}  # as environment variables


def default_limits(settings: type[ChatSettings | GatewaySettings]) -> dict[str, Any]:
    """Return the default of each limit of a service."""
    return {
        field.name: field.default for field in msgspec.structs.fields(settings) if field.name in (*OF_CHAT, *OF_GATEWAY)
    }
