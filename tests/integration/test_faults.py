"""Whoever is killed in the middle of 200 requests: every answer is right or typed and retryable, nothing is lost.

A whole `plaudit up` tree with its own broker and supervisor; the supervisor alone brings the dead back. In the end
nothing of the tree may be left on this host, however it ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.capabilities import HostCapabilities
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from support.asks import Ask, Asks, crowd, insist
from support.stack import wait_for
from support.whole import Whole


def new_whole(tiny_model: Path) -> Whole:
    walls = HostCapabilities.probe()
    if walls.level not in ("strong", "userns"):
        pytest.skip(f"programs cannot run here; missing: {'; '.join(walls.missing)}")
    return Whole(tiny_model, scorers="1", executors="2", lease_s="2", heartbeat_s="0.5", drain_s="15")


@pytest.fixture(scope="module")
def whole(tiny_model: Path) -> Iterator[Whole]:
    """One tree for the four deaths; each leaves it as ready as it was."""
    with new_whole(tiny_model) as one:
        yield one
        one.process.stop()
        one.assert_nothing_is_left()


async def is_well(whole: Whole, asks: Asks) -> None:
    """Ready, idle, and right about something new."""
    await asyncio.to_thread(wait_for, whole.ready, 30.0, "the service to be ready again")
    async with whole.async_client() as client:
        new = [asks.score(1000), asks.execute(1000), asks.rank(1000)]
        await crowd(client, new)
        await insist(client, new, 10.0)

        async def idle() -> bool:
            queues = (await client.get("/info")).json()["queues"]
            return all(queue["depth"] == 0 and queue["cost"] == 0 for queue in queues.values())

        async with asyncio.timeout(10):
            while not await idle():
                await asyncio.sleep(0.1)


def wait_until_busy(whole: Whole, depth: int, queue: str = EXECUTE_QUEUE) -> None:
    with whole.redis() as client:
        wait_for(lambda: whole.depth(client, queue) >= depth, 20.0, f"{depth} jobs in the queue")


def many(asks: Asks, scores: int, executes: int, ranks: int) -> list[Ask]:
    """Requests of every kind, each twice, behind programs that hold the executors up, however fast this host is."""
    return [*(asks.slow(number) for number in range(8)), *asks.mix(scores=scores, executes=executes, ranks=ranks)]


def kill_with_work_in_hand(whole: Whole, pid: int, queue: str) -> None:
    """SIGKILL a worker that holds leases, with more work waiting behind them."""
    with whole.redis() as client:
        until = time.monotonic() + 20.0
        while True:
            os.kill(pid, signal.SIGSTOP)
            if whole.in_hand(client, queue, pid) > 0:
                break
            os.kill(pid, signal.SIGCONT)
            assert time.monotonic() < until, "the worker never had work in hand"
            time.sleep(0.002)
        wait_until_busy(whole, 10, queue)
        assert whole.in_hand(client, queue, pid) > 0
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("role", ["scorer", "executor", "api", "broker"])
async def test_a_killed_process_costs_no_answer(whole: Whole, asks: Asks, role: str) -> None:
    sent = many(asks, scores=60, executes=20, ranks=16)
    assert len(sent) == 200
    victim = whole.of_role(role)[0]

    def kill() -> None:
        whole.note()
        if role in ("scorer", "executor"):
            kill_with_work_in_hand(whole, victim, queue_of_model("default") if role == "scorer" else EXECUTE_QUEUE)
            return
        wait_until_busy(whole, 10)
        os.kill(victim, signal.SIGKILL)

    async with whole.async_client() as client:
        await crowd(client, sent, disturb=kill, resets=role == "api")
        await asyncio.to_thread(wait_for, lambda: whole.replaced(role, victim), 20.0, f"another {role}")
        await asyncio.to_thread(wait_for, whole.ready, 30.0, "the service to be ready again")
        await insist(client, sent)
    await is_well(whole, asks)
    whole.note()


async def test_sigterm_finishes_what_was_accepted_and_leaves_nothing(tiny_model: Path, asks: Asks) -> None:
    with new_whole(tiny_model) as whole:
        sent = many(asks, scores=10, executes=10, ranks=5)
        for ask in sent:
            ask.later = False  # nobody will be there to be asked later

        def terminate() -> None:
            wait_until_busy(whole, 5)
            whole.note()
            whole.process.signal(signal.SIGTERM)

        async with whole.async_client() as client:
            await crowd(client, sent, disturb=terminate, resets=True)
        assert whole.process.popen.wait(30) == 0
        assert sum(ask.outcomes == ["right"] for ask in sent) >= 5
        whole.assert_nothing_is_left()


async def test_sigkill_of_the_parent_leaves_nothing(tiny_model: Path, asks: Asks) -> None:
    with new_whole(tiny_model) as whole:
        sent = many(asks, scores=10, executes=10, ranks=5)
        for ask in sent:
            ask.later = False

        def kill() -> None:
            wait_until_busy(whole, 5)
            whole.note()
            whole.process.kill()

        async with whole.async_client() as client:
            await crowd(client, sent, disturb=kill, resets=True)
        whole.assert_nothing_is_left()
