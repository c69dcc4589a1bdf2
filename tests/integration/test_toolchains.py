"""Executors of two toolchains on one Redis: no verdict of one judge is known under the identity of another."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from plaudit.grading import Verdict
from plaudit.schemas import ExecuteItem
from sandbox.types import AssertSuite, Limits, Report, TestReport
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shard_monitor import ShardMonitor
from service.api.dispatch.shards import Shards
from service.api.handlers.execute import EncodedSuite, ExecuteGroup, ExecutePlan, execute_job
from service.api.handlers.replays import Replays
from service.jobs import (
    Executed,
    ExecuteTask,
    Failed,
    Job,
    Reply,
    decode_reply,
    decode_task,
    encode,
    encode_suite,
    execute_job_id,
)
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Bound, Queue, Worker
from service.queue.protocol import now_ms
from service.settings import Settings
from service.worker.execute import ExecuteRunner
from service.worker.loop import StopSignal, WorkerContext
from support.broker import Broker

OLD, NEW = "sha256:old", "sha256:new"
WIDE = Bound(10_000, 1e9)
SUITE = encode_suite(AssertSuite(("assert f(1) == 2",)))


class FakeBox:
    """A sandbox that only knows its toolchain; whoever judges with it says so in the detail."""

    level = "strong"

    def __init__(self, toolchain: str) -> None:
        self.toolchain_digest = toolchain
        self.interrupt = threading.Event()

    def languages(self) -> list[Any]:
        return []


class Executor:
    """A worker of one toolchain, stepped by hand."""

    def __init__(self, toolchain: str, consumer: Consumer, verdict: Verdict, size: int = 0) -> None:
        self.consumer = consumer
        self.context = WorkerContext(consumer, StopSignal())
        self.work = ExecuteRunner(Settings(), FakeBox(toolchain))  # type: ignore[arg-type]
        tests = (TestReport(verdict, detail="x" * size),)
        report = Report(verdict, int(verdict is Verdict.PASSED), 1, tests, "split", "strong")
        self.work._judge = lambda task, suite: report  # type: ignore[method-assign]

    def step(self) -> int:
        leases = self.consumer.take(8, block_s=0.2)
        self.work.step(leases, self.context)
        return len(leases)


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[Queue]:
    client = connect_async(broker.url, max_connections=32)
    yield Queue(client, "plaudit", "api")
    await client.aclose()


@pytest.fixture
def executor(broker: Broker) -> Iterator[Callable[..., Executor]]:
    with ExitStack() as ends:

        def make(toolchain: str, verdict: Verdict, size: int = 0) -> Executor:
            client = connect(broker.url)
            ends.callback(client.close)
            consumer = Consumer(client, "plaudit", toolchain, (EXECUTE_QUEUE,), lease_s=6.0, max_deliveries=3)
            consumer.ensure_groups()
            return Executor(toolchain, consumer, verdict, size)

        yield make


def context() -> RequestContext:
    return RequestContext("r", now_ms() + 60_000)


def job(toolchain: str, program: str = "p") -> Job:
    return execute_job(ExecuteTask("python", program, "s", Limits(), None, toolchain=toolchain), SUITE, 1, context())


async def ask(queue: Queue, one: Job) -> Reply | None:
    """The cached reply, or None once the job is queued."""
    return (await queue.submit({"t": one}, WIDE)).get(one.id)


async def heard(queue: Queue) -> Executed:
    (reply,) = await queue.replies(2.0)
    assert isinstance(reply.body, Executed), reply
    return reply.body


@pytest.mark.parametrize(("admitted", "runs"), [(OLD, NEW), (NEW, OLD)])
async def test_a_job_of_another_toolchain_is_known_as_what_judged_it(
    queue: Queue, executor: Callable[..., Executor], admitted: str, runs: str
) -> None:
    """Old jobs that a new executor meets, and new jobs that an old one meets."""
    assert await ask(queue, job(admitted)) is None
    assert executor(runs, Verdict.PASSED).step() == 1
    assert (await heard(queue)).toolchain == runs
    assert await ask(queue, job(admitted)) is None  # nothing is known under the identity that was asked for
    assert executor(admitted, Verdict.WRONG_ANSWER).step() == 1
    assert (await heard(queue)).report.verdict is Verdict.WRONG_ANSWER
    known = {one: await ask(queue, job(one)) for one in (admitted, runs)}
    for toolchain, verdict in ((admitted, Verdict.WRONG_ANSWER), (runs, Verdict.PASSED)):
        reply = known[toolchain]
        assert reply is not None
        assert isinstance(reply.body, Executed)
        assert (reply.body.toolchain, reply.body.report.verdict) == (toolchain, verdict)


async def test_a_job_that_says_no_toolchain_is_remembered_under_the_judges(
    queue: Queue, executor: Callable[..., Executor]
) -> None:
    """It was queued by a version that did not say it."""
    assert await ask(queue, job("")) is None
    executor(NEW, Verdict.PASSED).step()
    assert (await heard(queue)).toolchain == NEW
    assert await ask(queue, job(NEW)) is not None
    assert await ask(queue, job("")) is None


async def test_a_mixed_fleet_never_mixes_what_is_known(queue: Queue, executor: Callable[..., Executor]) -> None:
    old, new = executor(OLD, Verdict.WRONG_ANSWER), executor(NEW, Verdict.PASSED)
    for at in range(12):
        jobs = {f"t{toolchain}": job(toolchain, str(at)) for toolchain in (OLD, NEW)}
        await queue.submit(jobs, WIDE)
        for one in (old, new) if at % 2 else (new, old):
            one.step()
    for at in range(12):
        for toolchain, verdict in ((OLD, Verdict.WRONG_ANSWER), (NEW, Verdict.PASSED)):
            reply = await ask(queue, job(toolchain, str(at)))
            assert reply is None or (isinstance(reply.body, Executed) and reply.body.report.verdict is verdict)
            if reply is not None:
                assert reply.body.toolchain == toolchain  # type: ignore[union-attr]


async def test_an_answer_to_another_identity_is_still_found_by_who_missed_it(
    queue: Queue, executor: Callable[..., Executor]
) -> None:
    """The reply list of an API that lost its connection is gone, and the answer is not cached under what it asked."""
    one = job(OLD)
    await ask(queue, one)
    executor(NEW, Verdict.PASSED).step()
    await queue.client.delete(queue.channel)
    reply = (await queue.look_up([one.id]))[one.id]
    assert reply is not None
    assert isinstance(reply.body, Executed)
    assert reply.body.toolchain == NEW


async def test_a_replay_names_what_judged_and_not_what_was_meant_to(
    queue: Queue, executor: Callable[..., Executor]
) -> None:
    item = ExecuteItem.model_validate(
        {
            "language": "python",
            "programs": ["def f(x): return 2"],
            "tests": {"kind": "assert", "asserts": ["assert f(1) == 2"]},
        }
    )
    plan = ExecutePlan([ExecuteGroup(item, EncodedSuite("s", SUITE, 1), OLD, context())], OLD)
    (one,) = plan.jobs()
    await ask(queue, one)
    executor(NEW, Verdict.PASSED).step()
    (reply,) = await queue.replies(2.0)

    class OneReply:
        async def replies(self, jobs: Any) -> dict[str, Reply]:
            return {reply.job: reply}

    result = await plan.result(OneReply(), 0)  # type: ignore[arg-type]
    assert [program.toolchain for program in result.programs] == [NEW]
    replays = Replays(Shards({"": queue}), 60, 1 << 20)
    replays.keep(context(), plan.toolchain, plan.groups, [result])
    await replays.close()
    replay = await replays.of("r", "")
    assert replay.toolchain == NEW
    assert [given.toolchain for given in replay.items[0].given] == [NEW]


def test_a_fleet_of_two_toolchains_admits_for_the_one_most_have() -> None:
    monitor = ShardMonitor(Mock(), Settings())
    fleet = Fleet([monitor], Settings())
    assert fleet.toolchain == ""
    for toolchains, wanted in (([OLD], OLD), ([OLD, NEW, OLD], OLD), ([NEW, OLD, NEW], NEW), ([NEW, OLD], OLD)):
        monitor.workers = [Worker(str(at), "execute", {"toolchain": one}) for at, one in enumerate(toolchains)]
        assert fleet.toolchain == wanted


def test_frames_without_the_field_are_read() -> None:
    task = ExecuteTask("python", "p", "s", Limits(), None)
    raw = msgspec.msgpack.decode(encode(task))
    del raw["toolchain"]
    assert decode_task(encode(raw)) == task
    reply = msgspec.msgpack.decode(encode(Reply("j", Executed(Report(Verdict.PASSED, 1, 1, (), "split", "strong")))))
    del reply["body"]["toolchain"]
    assert isinstance(body := decode_reply(encode(reply)).body, Executed)
    assert body.toolchain == ""
    assert execute_job_id(task) != execute_job_id(msgspec.structs.replace(task, toolchain=OLD))


# --- answers that the broker does not take ----------------------------------------------------------------------------


async def fill(queue: Queue) -> None:
    used = (await queue.client.info("memory"))["used_memory"]
    await queue.client.config_set("maxmemory", used)
    await queue.client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_full_broker_costs_no_executor_more_than_seconds(
    queue: Queue, executor: Callable[..., Executor], size: int
) -> None:
    """A small answer is handed in all the same; a large one is a small failure that may be tried again."""
    await ask(queue, job(NEW))
    await ask(queue, job(NEW, "q"))
    one = executor(NEW, Verdict.PASSED, size)
    await fill(queue)
    while one.step():
        pass
    bodies = [reply.body for _ in range(2) for reply in await queue.replies(0.5)]
    assert len(bodies) == 2
    for body in bodies:
        if size < 4096:
            assert isinstance(body, Executed)
        else:
            assert isinstance(body, Failed)
            assert (body.code, body.retryable) == ("answer_refused", True)
    await queue.client.config_set("maxmemory", 0)
    assert (await queue.load(EXECUTE_QUEUE)).depth == 0
    assert await ask(queue, job(NEW)) is None  # not remembered
