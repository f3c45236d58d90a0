"""The settings of notifier; see shared/settings.py."""

from typing import Annotated

import msgspec

from shared.settings import Port, WorkerSettings

Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]


class NotifierSettings(WorkerSettings, frozen=True, kw_only=True):
    """`notification_ttl_days`: how long an inbox keeps a notification, and a fired alert is listed."""

    admin_port: Port = 9103
    notification_ttl_days: Days = 90
