"""Cancelled tasks end even if they lose the first cancellation; work ends with its client's connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request

from plaudit.errors import ClientClosed
from service.api.dispatch.tasks import cancel_and_wait, cancel_on_disconnect, gather_or_cancel


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


def request_with(*messages: dict[str, Any]) -> Request:
    """A request whose client sends these messages, and then nothing more."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("the test takes no minute")

    return Request({"type": "http"}, receive)  # type: ignore[arg-type]


async def test_work_is_cancelled_when_the_client_closes_the_connection() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(ClientClosed):
        await cancel_on_disconnect(request_with({"type": "http.disconnect"}), work())
    assert cancelled.is_set()


async def test_work_is_answered_while_the_client_is_connected() -> None:
    async def work() -> int:
        return 7

    assert await cancel_on_disconnect(request_with(), work()) == 7


async def test_gathered_work_stops_when_one_of_it_fails() -> None:
    cancelled = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def broken() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await gather_or_cancel([endless(), broken()])
    await asyncio.wait_for(cancelled.wait(), 5)
