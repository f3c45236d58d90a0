"""Tasks of a proxy's connections that its owner may cancel."""

import asyncio
from collections.abc import Coroutine


async def run_apart(work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
    """Run `work` as a task, listed in `tasks` meanwhile, and return once it ended or was cancelled.

    Python 3.11 logs an error for a connection handler of `asyncio.start_server` that is cancelled itself.
    """
    task = asyncio.ensure_future(work)
    tasks.add(task)
    try:
        await asyncio.wait({task})
    finally:
        tasks.discard(task)
