"""Mapping of an upstream feed's JSON to ticks, configured by a TOML file. Pure.

docs/market-sources.md describes the file. A path is names separated by dots, with numbers for list elements:
`data.0.p`. The empty path is the frame itself.
"""

import tomllib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from market_feed.quotes import Tick
from market_feed.sources.parsing import read_fields, to_tick
from shared.errors import Malformed, Refusal, SettingsInvalid
from shared.process.settings import Seconds
from shared.protocol.validation import detail_of, is_symbol
from shared.times import from_iso

_PER_MS = {"s": 0.001, "ms": 1.0, "us": 1000.0, "ns": 1_000_000.0}

FieldPath = str
Scalar = str | int | float | bool


class FieldPaths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The paths of a tick's fields in the feed's JSON. Without `price`, the midpoint of `bid` and `ask` is used.

    `id` identifies a tick among those of its symbol: a tick repeated after a reconnect has no effect.
    """

    symbol: FieldPath
    price: FieldPath | None = None
    bid: FieldPath | None = None
    ask: FieldPath | None = None
    volume: FieldPath | None = None
    timestamp: FieldPath | None = None
    id: FieldPath | None = None


class FeedSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One upstream feed: a `[[feed]]` of the file.

    `ticks` is the path to a tick or a list of ticks; elements that do not `match` are skipped. `symbols` maps upstream
    names to local ones; other symbols keep their names.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
    url: Annotated[str, msgspec.Meta(pattern=r"^wss?://[^/]")]
    fields: FieldPaths
    subscribe: tuple[dict[str, Any], ...] = ()
    ticks: FieldPath = ""
    match: dict[str, Scalar] = {}
    symbols: dict[str, str] = {}
    timestamp_unit: Literal["iso", "s", "ms", "us", "ns"] = "iso"
    stale_s: Seconds = 60.0
    silent_s: Seconds = 60.0
    connect_timeout_s: Seconds = 10.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    feed: Annotated[tuple[FeedSpec, ...], msgspec.Meta(min_length=1)]


class UpstreamTick(msgspec.Struct, frozen=True):
    """A tick, and its id if the feed has one."""

    tick: Tick
    id: str | None


class Reading(msgspec.Struct, frozen=True):
    """The content of one frame: good ticks, and the problems of the others."""

    ticks: list[UpstreamTick]
    problems: list[str]


def parse_feeds(text: str) -> tuple[FeedSpec, ...]:
    """Parse the file. Raises SettingsInvalid with every problem."""
    try:
        feeds = msgspec.convert(tomllib.loads(text), _File).feed
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid([f"not TOML: {error}"]) from error
    except msgspec.ValidationError as error:
        detail = detail_of(error)
        raise SettingsInvalid([f"{detail.field or 'the file'}: {detail.reason}"]) from error
    problems = [problem for feed in feeds for problem in _problems(feed)]
    if len({feed.name for feed in feeds}) < len(feeds):
        problems.append("feed.name: two feeds have the same name")
    if problems:
        raise SettingsInvalid(problems)
    return feeds


def _problems(feed: FeedSpec) -> Iterable[str]:
    if feed.fields.price is None and (feed.fields.bid is None or feed.fields.ask is None):
        yield f"{feed.name}: fields.price: is missing; without it, both fields.bid and fields.ask are needed"
    for symbol in feed.symbols.values():
        if not is_symbol(symbol):
            yield f"{feed.name}: symbols: {symbol!r} is not a symbol"


def read_frame(feed: FeedSpec, body: str | bytes, now_ms: int) -> Reading:
    """Read one frame of the feed. Raises Malformed when it is not JSON."""
    try:
        frame = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not valid JSON: {error}") from error
    found = _at(frame, feed.ticks)
    reading = Reading([], [])
    for number, element in enumerate(found if isinstance(found, list) else [found]):
        if not isinstance(element, dict) or any(_at(element, path) != value for path, value in feed.match.items()):
            continue
        try:
            reading.ticks.append(_read_element(feed, element, now_ms))
        except Refusal as refusal:
            reading.problems.append(f"tick {number}: {refusal.message}")
    return reading


def _read_element(feed: FeedSpec, element: dict[str, Any], now_ms: int) -> UpstreamTick:
    paths = feed.fields
    symbol = _at(element, paths.symbol)
    fields: dict[str, Any] = {"symbol": feed.symbols.get(symbol, symbol) if isinstance(symbol, str) else symbol}
    for name, path in (("bid", paths.bid), ("ask", paths.ask), ("volume", paths.volume), ("price", paths.price)):
        if path is not None:
            fields[name] = _number(_at(element, path), name)
    if paths.price is None:
        fields["price"] = (_required(fields, "bid") + _required(fields, "ask")) / 2
    at_ms = now_ms if paths.timestamp is None else _time_ms(_at(element, paths.timestamp), feed.timestamp_unit)
    identity = None if paths.id is None else _at(element, paths.id)
    return UpstreamTick(to_tick(read_fields(fields), at_ms, now_ms), None if identity is None else str(identity))


def _at(value: Any, path: FieldPath) -> Any:
    """Return the value at a path, or None."""
    for name in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _number(value: Any, name: str) -> Any:
    """Return a number, which many feeds write as a string. None stays None."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError as error:
        raise Refusal.invalid(name, f"{value[:32]!r} is not a number") from error


def _required(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Refusal.invalid(name, "is not a number")
    return value


def _time_ms(value: Any, unit: str) -> int:
    try:
        if unit == "iso":
            return from_iso(value)
        return round(float(value) / _PER_MS[unit])
    except (TypeError, ValueError, OverflowError) as error:
        raise Refusal.invalid("timestamp", f"{str(value)[:32]!r} is not a time in {unit}") from error
