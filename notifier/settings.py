"""The settings of notifier; see shared/process/settings.py."""

from typing import Annotated

import msgspec

from shared.process.settings import Count, Port, WorkerSettings

Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]


class NotifierSettings(WorkerSettings, frozen=True, kw_only=True):
    """Settings of notifier. `notification_ttl_days`: retention of inbox entries and fired alerts.

    `revocation_ttl_days`: retention of revocations, longer than the lifetime of any token. `alerts_max_per_user`: the
    limit of a user's active alerts.
    """

    admin_port: Port = 9103
    notification_ttl_days: Days = 90
    revocation_ttl_days: Days = 90
    alerts_max_per_user: Count = 1000
