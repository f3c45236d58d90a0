"""The settings of notifier; see shared/process/settings.py."""

from typing import Annotated

import msgspec

from shared.process.settings import Count, Port, WorkerSettings

Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]


class NotifierSettings(WorkerSettings, frozen=True, kw_only=True):
    """`notification_ttl_days`: how long an inbox keeps a notification, and a fired alert is listed.

    `revocation_ttl_days`: how long a revocation is kept; longer than any token lives.
    `alerts_max_per_user`: how many active alerts a user may have.
    """

    admin_port: Port = 9103
    notification_ttl_days: Days = 90
    revocation_ttl_days: Days = 90
    alerts_max_per_user: Count = 1000
