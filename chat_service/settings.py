"""The settings of chat_service; see shared/process/settings.py."""

from shared.process.settings import Count, Port, WorkerSettings


class ChatSettings(WorkerSettings, frozen=True, kw_only=True):
    """`rate_limit_messages_per_minute` applies to a user over all sockets, gateways and REST."""

    admin_port: Port = 9101
    rate_limit_messages_per_minute: Count = 100
