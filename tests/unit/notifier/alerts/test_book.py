"""Price alerts: the book against a plain list, and the event of a fired alert."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.alerts.book import AlertBook, AlertTerms, Fired, Hit, fired_event
from shared.bus.events import decode_event
from shared.commands.market import AppliedTick
from shared.commands.notifier import AlertDirection

ABOVE, BELOW = AlertDirection.ABOVE, AlertDirection.BELOW
prices = st.integers(1, 20).map(lambda n: n / 4)


def alert(id_: str, direction: AlertDirection = ABOVE, price: float = 2.0, symbol: str = "A") -> AlertTerms:
    return AlertTerms(id_, "u", symbol, direction, price)


def tick(price: float, symbol: str = "A") -> AppliedTick:
    return AppliedTick(symbol, price, 7, 1761048000000)


def book_of(*alerts: AlertTerms) -> AlertBook:
    book = AlertBook()
    for one in alerts:
        book.add(one)
    return book


def fired(book: AlertBook, price: float, symbol: str = "A") -> set[str]:
    return {hit.terms.id for hit in book.take_hits(tick(price, symbol))}


@pytest.mark.parametrize(
    ("direction", "price", "fires"),
    [(ABOVE, 1.99, False), (ABOVE, 2.0, True), (ABOVE, 3.0, True), (BELOW, 2.01, False), (BELOW, 2.0, True)],
)
def test_alert_fires_at_its_price_or_beyond(direction: AlertDirection, price: float, *, fires: bool) -> None:
    assert fired(book_of(alert("a", direction)), price) == ({"a"} if fires else set())


def test_alert_fires_once() -> None:
    book = book_of(alert("a"))
    assert fired(book, 5.0) == {"a"}
    assert fired(book, 6.0) == set()
    assert len(book) == 0


def test_other_symbols_do_not_fire_alert() -> None:
    assert fired(book_of(alert("a")), 5.0, symbol="B") == set()


def test_hit_carries_its_tick() -> None:
    assert book_of(alert("a")).take_hits(tick(2.5)) == [Hit(alert("a"), tick(2.5))]


def test_removed_alert_does_not_fire_and_can_be_added_again() -> None:
    book = book_of(alert("a"), alert("b"))
    book.remove("a")
    book.remove("never there")
    assert fired(book, 5.0) == {"b"}
    book.add(alert("a"))
    book.add(alert("a"))
    assert len(book) == 1
    assert fired(book, 5.0) == {"a"}


changes = st.lists(
    st.tuples(st.just("add"), st.builds(alert, st.sampled_from("abcdefgh"), st.sampled_from([ABOVE, BELOW]), prices))
    | st.tuples(st.just("remove"), st.sampled_from("abcdefgh"))
    | st.tuples(st.just("tick"), prices),
    max_size=60,
)


@given(changes)
def test_book_fires_same_alerts_as_plain_list(given_changes: list[tuple[str, AlertTerms | str | float]]) -> None:
    book, plain = AlertBook(), dict[str, AlertTerms]()
    used: set[str] = set()
    for what in given_changes:
        match what:
            case ("add", AlertTerms() as one):
                if one.id not in used:  # an id is never reused
                    used.add(one.id)
                    plain[one.id] = one
                    book.add(one)
            case ("remove", str() as id_):
                plain.pop(id_, None)
                book.remove(id_)
            case ("tick", float() as price):
                expected = {
                    id_
                    for id_, one in plain.items()
                    if (price >= one.price if one.direction is ABOVE else price <= one.price)
                }
                assert fired(book, price) == expected
                plain = {id_: one for id_, one in plain.items() if id_ not in expected}
        assert len(book) == len(plain)


def test_removed_alerts_leave_no_garbage() -> None:
    book = AlertBook()
    for number in range(10_000):
        book.add(alert(f"a{number}", price=100.0 + number))
        book.remove(f"a{number}")
    book.add(alert("last"))
    assert len(book) == 1
    assert sum(len(heaps.above) for heaps in book._heaps.values()) < 3_000
    assert fired(book, 1e6) == {"last"}


class Counted(float):
    """A price that counts its comparisons."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) < float(other)

    def __le__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) <= float(other)

    def __gt__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) > float(other)

    def __ge__(self, other: float) -> bool:
        Counted.comparisons += 1
        return float(self) >= float(other)


def test_tick_that_fires_nothing_reads_two_alerts() -> None:
    above = (alert(f"a{number}", price=100.0 + number) for number in range(50_000))
    below = (alert(f"b{number}", price=99.0 - number / 1000, direction=BELOW) for number in range(50_000))
    book = book_of(*above, *below)
    Counted.comparisons = 0
    assert book.take_hits(tick(Counted(99.5))) == []
    assert 0 < Counted.comparisons <= 4


# The event -------------------------------------------------------------------------------------------------------


def test_fired_event_has_price_seq_and_time() -> None:
    event = decode_event(fired_event(Fired(Hit(alert("alert_1", price=2.0), tick(2.5)), 1761048001000)))
    assert (event.id, event.type, event.audience) == ("alert_1", "notification.created", "user:u")
    assert event.time == "2025-10-21T12:00:01.000Z"
    assert event.data == {
        "userId": "u",
        "title": "A above 2",
        "message": "A is at 2.5; your alert was set at 2.",
        "priority": "high",
        "alert": {"id": "alert_1", "symbol": "A", "direction": "above", "price": 2.0},
        "tick": {"price": 2.5, "seq": 7, "timestamp": "2025-10-21T12:00:00.000Z"},
    }


@given(st.floats(1e-9, 1e12))
def test_prices_are_shown_with_all_digits(price: float) -> None:
    title = json.loads(fired_event(Fired(Hit(alert("a", price=price), tick(price)), 0)))["data"]["title"]
    assert float(title.removeprefix("A above ")) == price
    assert "e" not in title.removeprefix("A above ")
