"""A control delivery that fails costs no other."""

from gateway.fanout.controls import guarded
from shared.bus.delivery import ControlKind, Delivery, DeliveryKind


def test_failing_control_is_skipped() -> None:
    seen: list[int] = []

    def control(delivery: Delivery) -> None:
        if delivery.position == 1:
            raise ValueError("malformed")
        seen.append(delivery.position)

    for position in range(3):
        guarded(control)(Delivery("room:r", DeliveryKind.CONTROL, position, ControlKind.EVICT, b"{}"))
    assert seen == [0, 2]
