"""Events on their way to the application: handlers and streams."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self
from weakref import WeakSet

log = logging.getLogger(__name__)

EVENTS_MAX = 10_000

Handler = Callable[[Any], None]


class Event(NamedTuple):
    """An event: the type of its frame, and its data as published."""

    type: str
    data: Any


class EventsOverflow(Exception):
    """Overflow of the buffer of an iterator over events that the application did not read in time."""


class EventStream:
    """Buffer of one iterator, at most 10,000 events. When it is full, iteration ends after them with EventsOverflow."""

    def __init__(self, types: Sequence[str]) -> None:
        self._types = frozenset(types)
        self._changed = asyncio.Event()
        self._end: Exception | None = None
        self._buffer: deque[Event] = deque()

    def put(self, event: Event) -> None:
        """Append an event if the stream includes its type."""
        if self._end is not None or (self._types and event.type not in self._types):
            return
        if len(self._buffer) < EVENTS_MAX:
            self._buffer.append(event)
            self._changed.set()
        else:
            self.end(EventsOverflow(f"more than {EVENTS_MAX} events are unread"))

    def end(self, error: Exception) -> None:
        """End the iteration after the buffered events by raising `error`."""
        self._end = self._end or error
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._buffer:
            if self._end is not None:
                raise self._end
            self._changed.clear()
            await self._changed.wait()
        return self._buffer.popleft()


class EventDispatcher:
    """Handlers and streams of one client; every event reaches both, in order."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        self._streams: WeakSet[EventStream] = WeakSet()  # an abandoned iterator disappears by itself

    def add_handler(self, type_: str, handler: Handler) -> None:
        """Add a handler for a type. Raises TypeError for a coroutine function."""
        if inspect.iscoroutinefunction(handler):
            raise TypeError("a handler must not be a coroutine function: iterate over events() instead")
        self._handlers.setdefault(type_, []).append(handler)

    def remove_handler(self, type_: str, handler: Handler | None) -> None:
        """Remove a handler, or all handlers of a type. Unknown handlers are ignored."""
        if handler is None:
            self._handlers.pop(type_, None)
        else:
            with suppress(ValueError):
                self._handlers.get(type_, []).remove(handler)

    def stream(self, types: Sequence[str]) -> EventStream:
        """Return a stream of the given types, or of all types if there are none."""
        stream = EventStream(types)
        self._streams.add(stream)
        return stream

    def dispatch(self, event: Event) -> None:
        """Call the handlers of an event's type and append it to the streams. Log a handler's exception."""
        for handler in tuple(self._handlers.get(event.type, ())):
            try:
                handler(event.data)
            except Exception:  # isolates the client from the application's handlers
                log.exception("handler of %r failed", event.type)
        for stream in list(self._streams):
            stream.put(event)

    def end_streams(self) -> None:
        """End the iteration over every stream after its buffered events."""
        for stream in list(self._streams):
            stream.end(StopAsyncIteration())
