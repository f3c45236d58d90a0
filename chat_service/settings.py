"""The settings of chat_service; see shared/process/settings.py."""

from typing import Annotated

import msgspec

from shared.process.settings import Count, Port, WorkerSettings


class ChatSettings(WorkerSettings, frozen=True, kw_only=True):
    """Rates and quotas apply to a user over all sockets, gateways and REST.

    A message may be edited for `message_edit_window_s`; 0 allows no edits. A room with more than `presence_room_max`
    members is sent counts of its members online, not each change.
    """

    admin_port: Port = 9101
    rate_limit_messages_per_minute: Count = 100
    rate_room_creations_per_hour: Count = 10
    rate_joins_per_minute: Count = 60
    rate_invitations_per_hour: Count = 100
    rate_stranger_messages_per_hour: Count = 10
    rate_changes_per_minute: Count = 120
    message_edit_window_s: Annotated[int, msgspec.Meta(ge=0)] = 86_400
    rooms_created_max: Count = 100
    rooms_joined_max: Count = 1_000
    presence_room_max: Count = 500
