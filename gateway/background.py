"""Tasks of a group that are cancelled when their context exits."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@contextmanager
def background(tasks: asyncio.TaskGroup) -> Iterator[Spawn]:
    """Yield a function that starts a task in the group, to be cancelled when the context exits.

    A task that is started after that is cancelled at once.
    """
    running: set[asyncio.Task[None]] = set()
    is_open = True

    def spawn(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        if not is_open:  # the group may have ended
            late = asyncio.get_running_loop().create_task(work)
            late.cancel()
            return late
        task = tasks.create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)
        return task

    try:
        yield spawn
    finally:
        is_open = False
        for task in list(running):
            task.cancel()
