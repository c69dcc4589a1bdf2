"""What integration tests share: a broker, a tiny checkpoint, and the service as real processes.

`stack` is one for the whole session, for tests that only ask; whoever kills, fills or reconfigures makes their own
with `make_stack`. Both need a host on which programs may run at all; elsewhere these tests are skipped.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from sandbox.capabilities import HostCapabilities
from service.api.dispatch.tasks import cancel_and_wait, repeat
from service.api.stores import event_reader
from service.api.stores.durable_requests import DurableRequests, Perform
from service.api.stores.event_reader import EventReader
from service.queue.connections import connect_async
from service.queue.producer import Queue
from service.scoring.reward_model import Calibration, RewardModel
from support.asks import Asks
from support.broker import Broker
from support.checkpoints import checkpoint
from support.stack import Stack

MakeStack = Callable[..., Stack]


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A Redis of the test's own, empty."""
    with Broker() as one:
        yield one


@pytest.fixture
async def make_requests(broker: Broker) -> AsyncIterator[Callable[..., DurableRequests]]:
    """The durable requests of API processes by owner, each with 32 connections and an event reader that runs."""
    clients: list[redis.asyncio.Redis] = []
    loops: list[asyncio.Task[None]] = []

    def make(owner: str, perform: Perform, keep_s: int = 3600) -> DurableRequests:
        pool, reading = connect_async(broker.url, max_connections=32), connect_async(broker.url, max_connections=1)
        clients.extend((pool, reading))
        queue = Queue(pool, "plaudit", owner)
        reader = EventReader(reading, queue, owner)
        steps = (("events", reader.receive, 0.0), ("owners", reader.check, event_reader.CHECK_S))
        loops.extend(asyncio.create_task(repeat(*step)) for step in steps)
        return DurableRequests(queue, owner, keep_s, perform, reader)

    yield make
    await cancel_and_wait(loops)
    for client in clients:
        await client.aclose()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights with a calibration, 256 tokens at most."""
    return checkpoint(tmp_path_factory.mktemp("tiny"), calibration=Calibration(a=2.0, b=-1.0))


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_model: Path) -> RewardModel:
    """The tiny checkpoint, loaded here: what a scorer must answer."""
    return RewardModel.load(str(tiny_model), dtype="float32", threads=1)


@pytest.fixture
def asks(tiny_reward_model: RewardModel) -> Asks:
    """Makes requests with known answers, that no other test has sent."""
    return Asks(tiny_reward_model)


def _needs_walls() -> None:
    walls = HostCapabilities.probe()
    if walls.level not in ("strong", "userns"):
        pytest.skip(f"programs cannot run here; missing: {'; '.join(walls.missing)}")


@pytest.fixture(scope="session")
def stack(tiny_model: Path) -> Iterator[Stack]:
    """The whole service, ready. Tests may ask it anything and change nothing about it."""
    _needs_walls()
    with Broker() as broker, Stack(broker, tiny_model) as one:
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


@pytest.fixture
def make_stack(tiny_model: Path) -> Iterator[MakeStack]:
    """Make a stack of the test's own: `make_stack(append_only=True, scorers=2, lease_s="1")`."""
    _needs_walls()
    with ExitStack() as ends:

        def make(*, append_only: bool = False, **options: Any) -> Stack:
            broker = ends.enter_context(Broker(append_only=append_only))
            one = Stack(broker, tiny_model, **options)
            ends.callback(shutil.rmtree, one.folder, ignore_errors=True)
            return ends.enter_context(one)

        yield make
