"""Redis goes away, comes back, comes back empty, or just says nothing: answers are right or typed, and nobody hangs.

The workers are stopped (SIGSTOP) while requests are being accepted, so that all of them are in the queue, and none is
answered, when the broker goes.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from service.queue.keys import EXECUTE_QUEUE, Keys, queue_of_model
from support.asks import Ask, Asks, crowd, insist
from support.stack import Stack, wait_for

MakeStack = Callable[..., Stack]


@contextmanager
def workers_held(stack: Stack) -> Iterator[None]:
    workers = [*stack.of_kind("score"), *stack.of_kind("execute")]
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.signal(signal.SIGCONT)


def wait_for_jobs(stack: Stack, scores: int, executes: int) -> None:
    """Until exactly so many jobs are in the queue."""
    keys = Keys("plaudit")
    with stack.broker.client() as client:
        wait_for(
            lambda: (
                (client.zcard(keys.live(queue_of_model("default"))), client.zcard(keys.live(EXECUTE_QUEUE)))
                == (scores, executes)
            ),
            20.0,
            f"{scores} and {executes} jobs",
        )


def some(asks: Asks) -> list[Ask]:
    """Six of each kind, all different: 12 jobs to score, and 18 programs."""
    return [make(number) for make in (asks.score, asks.execute, asks.rank) for number in range(6)]


async def test_an_outage_of_three_seconds_is_said_and_what_was_accepted_ends_right(
    make_stack: MakeStack, asks: Asks
) -> None:
    stack = make_stack(append_only=True)
    plain = some(asks)
    later, keyed = [asks.score(100), asks.execute(100)], [asks.score(101), asks.execute(101)]
    for number, ask in enumerate(later):
        ask.later = True
        keyed[number].key = f"outage-{number}"

    def outage() -> None:
        with workers_held(stack):
            wait_for_jobs(stack, 14, 20)
            stack.broker.kill()
            went = time.monotonic()
            with stack.client() as client:
                wait_for(lambda: client.get("/ready").status_code == 503, 3.0, "/ready to say that the queue is gone")
                assert client.get("/ready").json()["broker"] is False
                assert client.get("/health").status_code == 200
                refused = client.post("/score", json=asks.score(102).body)
                assert refused.status_code == 503
                assert refused.json()["code"] == "broker_unavailable"
                assert refused.json()["retryable"] is True
                assert int(refused.headers["Retry-After"]) >= 1
            time.sleep(max(0.0, went + 3.0 - time.monotonic()))
            stack.broker.start()

    async with stack.async_client() as client:
        await crowd(client, [*plain, *later, *keyed], disturb=outage)
        assert [ask.outcomes for ask in plain] == [["right"]] * len(plain)
        assert [ask.outcomes for ask in later] == [["right"]] * len(later)
        await insist(client, keyed, 15.0)  # whoever waits for a keyed answer is told of the outage, and comes back
        await asyncio.to_thread(wait_for, lambda: ready(stack), 10.0, "the service to be ready by itself")
        again = [asks.score(200), asks.execute(200), asks.rank(200)]
        await crowd(client, again)
        assert [ask.outcomes for ask in again] == [["right"]] * 3


def ready(stack: Stack) -> bool:
    with stack.client() as client:
        return client.get("/ready").status_code == 200


async def test_a_broker_that_comes_back_empty_is_a_typed_loss_and_no_hang(make_stack: MakeStack, asks: Asks) -> None:
    stack = make_stack()
    sent = some(asks)
    for number, ask in enumerate(sent):
        ask.key = f"empty-{number}" if number % 3 == 1 else None
        ask.later = number % 3 == 2

    def empty() -> None:
        with workers_held(stack):
            wait_for_jobs(stack, 12, 18)
            stack.broker.kill()
            time.sleep(0.5)
            stack.broker.start()

    async with stack.async_client() as client:
        async with asyncio.timeout(30):
            await crowd(client, sent, disturb=empty)
        assert [ask.outcomes for ask in sent] == [["put off"]] * len(sent)
        await asyncio.to_thread(wait_for, lambda: ready(stack), 15.0, "the service to be ready by itself")
        await insist(client, sent, 15.0)


@pytest.mark.extended
async def test_connections_survive_a_silence_of_four_seconds(make_stack: MakeStack, asks: Asks) -> None:
    stack = make_stack()
    sent = some(asks)
    assert stack.broker.process is not None
    broker = stack.broker.process

    def silence() -> None:
        with workers_held(stack):
            wait_for_jobs(stack, 12, 18)
            broker.send_signal(signal.SIGSTOP)
        time.sleep(4.0)
        broker.send_signal(signal.SIGCONT)

    async with stack.async_client() as client:
        try:
            await crowd(client, sent, disturb=silence)
        finally:
            broker.send_signal(signal.SIGCONT)
        assert [ask.outcomes for ask in sent] == [["right"]] * len(sent)
        await asyncio.to_thread(wait_for, lambda: ready(stack), 30.0, "workers that were silent, too, to be seen again")
        again = some(Asks(asks.model))
        await crowd(client, again)
        assert [ask.outcomes for ask in again] == [["right"]] * len(again)
