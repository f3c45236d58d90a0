"""Charges of several rates: whole or not at all, once per command."""

from chat_service.partitions.rates import HOUR_MS, MINUTE_MS, Cost, Excess, Limit, Rate, RateWindows

CREATION = (Cost(Rate.CREATIONS),)


def windows(creations: int = 2, invitations: int = 10) -> RateWindows:
    return RateWindows(
        {
            Rate.CREATIONS: Limit(creations, HOUR_MS),
            Rate.INVITATIONS: Limit(invitations, HOUR_MS),
            Rate.JOINS: Limit(2, MINUTE_MS),
        }
    )


def test_rates_are_counted_apart() -> None:
    rates = windows(creations=1)
    assert rates.charge("ann", "c1", CREATION, 0) is None
    assert rates.charge("ann", "c2", CREATION, 10) == Excess(Rate.CREATIONS, HOUR_MS - 10)
    assert rates.charge("ann", "c3", (Cost(Rate.JOINS),), 10) is None
    assert rates.charge("ben", "c4", CREATION, 10) is None


def test_charge_of_two_rates_is_taken_whole_or_not_at_all() -> None:
    rates = windows(creations=2, invitations=10)
    assert rates.charge("ann", "c1", (*CREATION, Cost(Rate.INVITATIONS, 8)), 0) is None
    refused = rates.charge("ann", "c2", (*CREATION, Cost(Rate.INVITATIONS, 3)), 1)
    assert refused == Excess(Rate.INVITATIONS, HOUR_MS - 1)
    assert rates.charge("ann", "c3", (*CREATION, Cost(Rate.INVITATIONS, 2)), 2) is None
    assert rates.charge("ann", "c4", CREATION, 3) == Excess(Rate.CREATIONS, HOUR_MS - 3)


def test_longest_wait_is_reported() -> None:
    rates = windows(creations=1, invitations=1)
    rates.charge("ann", "c1", (Cost(Rate.INVITATIONS),), 0)
    rates.charge("ann", "c2", CREATION, 60)
    assert rates.charge("ann", "c3", (Cost(Rate.INVITATIONS), *CREATION), 100) == Excess(Rate.CREATIONS, HOUR_MS - 40)


def test_more_invitations_at_once_than_the_limit_never_fit() -> None:
    rates = windows(invitations=10)
    for at_ms in (0, HOUR_MS, 5 * HOUR_MS):
        refused = rates.charge("ann", f"c{at_ms}", (*CREATION, Cost(Rate.INVITATIONS, 11)), at_ms)
        assert refused == Excess(Rate.INVITATIONS, HOUR_MS)


def test_command_that_arrives_again_is_charged_once_and_refunded_whole() -> None:
    rates = windows(creations=1, invitations=10)
    costs = (*CREATION, Cost(Rate.INVITATIONS, 10))
    assert [rates.charge("ann", "c1", costs, at_ms) for at_ms in range(3)] == [None] * 3
    assert rates.charge("ann", "c2", costs, 4) is not None
    rates.refund("ann", "c1", [cost.rate for cost in costs])
    assert rates.charge("ann", "c2", costs, 5) is None
