"""Tasks that end with a context."""

import asyncio

from gateway.background import background


async def assert_cancelled(task: asyncio.Task[object]) -> None:
    await asyncio.wait([task])
    assert task.cancelled()


async def test_tasks_end_with_the_context_and_other_tasks_continue() -> None:
    go_on = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        other = tasks.create_task(go_on.wait())
        with background(tasks) as spawn:
            task = spawn(asyncio.sleep(60))
        await assert_cancelled(task)
        assert not other.done()
        go_on.set()


async def test_task_started_after_the_context_is_cancelled() -> None:
    async with asyncio.TaskGroup() as tasks:
        with background(tasks) as spawn:
            pass
        await assert_cancelled(spawn(asyncio.sleep(60)))


async def test_task_started_after_the_end_of_its_group_is_cancelled() -> None:
    async with asyncio.TaskGroup() as tasks:
        with background(tasks) as spawn:
            pass
    await assert_cancelled(spawn(asyncio.sleep(60)))
