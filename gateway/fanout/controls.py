"""A guard for the handler of control deliveries, which come from the broker and from filled gaps."""

from collections.abc import Callable

from shared.bus.delivery import Delivery
from shared.telemetry import logs

log = logs.get(__name__)

OnControl = Callable[[Delivery], None]


def guarded(on_control: OnControl) -> OnControl:
    """Return `on_control` as a function that logs what it raises: a bug costs one delivery, not those after it."""

    def control(delivery: Delivery) -> None:
        try:
            on_control(delivery)
        except Exception:
            log.exception("control_failed", key=delivery.key)

    return control
