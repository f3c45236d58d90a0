"""Lists in query strings, whose elements may hold commas."""

import pytest

from gateway.rest.envelope import _elements_of


@pytest.mark.parametrize(
    ("query", "elements"),
    [
        ("ids=ada,bob", ["ada", "bob"]),
        ("ids=ada%2Cbob", ["ada", "bob"]),  # as many HTTP libraries send it
        ("ids=ada,d%2Ce", ["ada", "d,e"]),  # a plain comma separates, if there is one
        ("ids=d%252Ce", ["d,e"]),
        ("ids=ada,d%2Ce&other=x,y&ids=bob%2Ccy&ids=", ["ada", "d,e", "bob", "cy"]),
        ("ids=+a+b+,%E2%82%AC", ["a b", "€"]),
        ("other=1", []),
    ],
)
def test_elements_of_list_parameter(query: str, elements: list[str]) -> None:
    assert _elements_of(query, "ids") == elements
