"""Tasks that are told to end do end, even if they lose the first cancellation."""

from __future__ import annotations

import asyncio

from service.api.dispatch.tasks import cancel_and_wait


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait([task]), 5)
    assert task.cancelled()
    assert lost == [1]


async def test_what_a_task_ends_with_is_not_raised() -> None:
    async def broken() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("x")

    task = asyncio.create_task(broken())
    await asyncio.sleep(0)
    await cancel_and_wait([task])
    assert isinstance(task.exception(), KeyError)


async def test_nothing_to_end_is_nothing_to_wait_for() -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result(1)
    await cancel_and_wait([])
    await cancel_and_wait([done])
