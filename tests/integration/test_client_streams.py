"""The client against the running service: partial results as they come, and two copies of one call."""

from __future__ import annotations

import time
import uuid
from contextlib import aclosing

import pytest

from plaudit import AsyncClient, Client
from plaudit.errors import Conflict, NotFound
from plaudit.schemas import ExecuteItem, ExecuteRequest, ExecuteResult, StdioTestCase, StdioTests
from support.stack import Stack, wait_for

TESTS = StdioTests(kind="stdio", cases=[StdioTestCase(stdout="done\n")])


def request_of(*seconds: float) -> ExecuteRequest:
    """An item for each: a program that nobody has sent before, which sleeps so long."""
    sources = [f"import time\ntime.sleep({each})\nprint('done')  # {uuid.uuid4()}" for each in seconds]
    return ExecuteRequest(items=[ExecuteItem(language="python", programs=[one], tests=TESTS) for one in sources])


def test_items_come_as_they_are_done(stack: Stack) -> None:
    with Client(stack.url) as plaudit:
        began, came = time.monotonic(), []
        for part in plaudit.stream(request_of(0.0, 2.0)):
            assert isinstance(part.result, ExecuteResult)
            assert part.result.programs[0].verdict == "passed"
            came.append((part.index, time.monotonic() - began))
    assert sorted(index for index, _ in came) == [0, 1]
    assert came[1][1] - came[0][1] > 0.5  # the first was not kept for the last


async def test_awaited_and_left_early_the_rest_is_cancelled(stack: Stack) -> None:
    request = request_of(0.0, *[1.5] * 12)
    async with AsyncClient(stack.url) as plaudit:
        async with aclosing(plaudit.stream(request)) as parts:
            async for part in parts:
                assert part.result.programs[0].verdict == "passed"
                break
        queue = "execute"
        with Client(stack.url) as watch:
            wait_for(lambda: watch.info().queues[queue].depth == 0, 10, "the rest to be taken back")


def test_an_error_of_the_request_is_that_error(stack: Stack) -> None:
    unknown = ExecuteItem.model_validate(
        {"language": "python", "programs": ["1"], "tests": {"kind": "ref", "sha256": "0" * 64}}
    )
    with Client(stack.url) as plaudit, pytest.raises(NotFound):
        list(plaudit.stream(ExecuteRequest(items=[unknown])))


def test_two_copies_of_a_call_are_one_piece_of_work(stack: Stack) -> None:
    key, request = uuid.uuid4().hex, request_of(0.0)
    with Client(stack.url) as plaudit:
        first = plaudit.execute(request, idempotency_key=key)
        assert plaudit.execute(request, idempotency_key=key) == first
        with pytest.raises(Conflict):
            plaudit.execute(request_of(0.0), idempotency_key=key)
