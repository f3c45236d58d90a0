"""5,000 users who arrive, and 5,000 who leave while as many others arrive, on the whole system."""

import pytest

from gateway.live.presence import GRACE_S
from tests.bench.__main__ import parse, with_defaults
from tests.bench.scenarios import presence

USERS = 10_000
CALLS_MAX = 2.0  # per 100 users
ARRIVAL_CALLS_MAX = 3.0  # the slower users arrive, the fewer a page has


@pytest.mark.long
def test_storm_of_users_is_true_soon_and_leaves_the_database_idle() -> None:
    options = with_defaults(parse(["presence", "--sockets", str(USERS)]), "presence")
    figures = presence.run(options).figures
    assert figures["arrival_true_after_s"] - figures["arrival_connected_after_s"] < 15.0
    assert figures["change_true_after_s"] - max(figures["change_connected_after_s"], GRACE_S) < 15.0
    for storm, calls in (("arrival", ARRIVAL_CALLS_MAX), ("change", CALLS_MAX)):
        assert figures[f"{storm}_calls_per_100_users"] <= calls
        assert figures[f"{storm}_database_idle_after_s"] - figures[f"{storm}_true_after_s"] < 15.0
