"""Executors lease several jobs at once: each takes its share, and only what was begun counts as tried."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from plaudit.grading import Verdict
from sandbox.types import Limits, Report
from service.jobs import Executed, ExecuteTask, Failed, Job, JobState, content_hash, encode
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer, FinishedJob, Lease
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Bound, Queue
from service.queue.protocol import now_ms
from service.worker.batch import HAND_BACK_AFTER_S, JobBatch, JobPace
from service.worker.loop import StopSignal, WorkerContext
from support.broker import Broker
from support.stack import wait_for

WIDE = Bound(10_000, 1e9)
LEASE_S = 0.3
DONE = Executed(Report(Verdict.PASSED, 1, 1, (), "split", "strong"), "toolchain")
MakeWorker = Callable[..., Consumer]


def job(name: str, *, tenant: str = "", cost: float = 1.0) -> Job:
    task = encode(ExecuteTask("python", name, "s", Limits(), None, toolchain="t"))
    return Job(content_hash(task), "execute", EXECUTE_QUEUE, "normal", task, cost, now_ms() + 60_000, tenant=tenant)


def tokens(*names: str, tenant: str = "") -> dict[str, Job]:
    return {f"t-{name}": job(name, tenant=tenant) for name in names}


def sources(leases: Sequence[Lease]) -> list[str]:
    return [lease.task.source for lease in leases if isinstance(lease.task, ExecuteTask)]


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[Queue]:
    client = connect_async(broker.url, max_connections=32)
    yield Queue(client, "plaudit", "api")
    await client.aclose()


@pytest.fixture
def make_worker(broker: Broker) -> Iterator[MakeWorker]:
    with ExitStack() as ends:

        def make(name: str, num_workers: int = 1, max_deliveries: int = 2) -> Consumer:
            client = connect(broker.url)
            ends.callback(client.close)
            consumer = Consumer(
                client, "plaudit", name, (EXECUTE_QUEUE,), lease_s=LEASE_S, max_deliveries=max_deliveries
            )
            consumer.num_workers = num_workers
            consumer.ensure_groups()
            return consumer

        yield make


# --- leasing ---------------------------------------------------------------------------------------------------------


async def test_a_worker_takes_its_share_of_what_is_live(queue: Queue, make_worker: MakeWorker) -> None:
    first, second = make_worker("w1", num_workers=2), make_worker("w2", num_workers=2)
    await queue.submit(tokens(*"abcdefgh"), WIDE)
    assert sources(first.take(16, 0.0, share=True)) == list("abcd")
    assert sources(second.take(16, 0.0, share=True)) == list("efgh")


async def test_an_idle_worker_is_woken_with_its_whole_share(queue: Queue, make_worker: MakeWorker) -> None:
    worker = make_worker("w1")
    assert worker.take(16, 0.0, share=True) == []
    waiting = asyncio.create_task(asyncio.to_thread(worker.take, 16, 0.5, share=True))
    wait = worker.client.info("clients")["blocked_clients"]
    while not wait and not waiting.done():
        await asyncio.sleep(0.01)
        wait = (await queue.client.info("clients"))["blocked_clients"]
    await queue.submit(tokens(*"abcd"), WIDE)
    assert sources(await waiting) == list("abcd")


async def test_a_share_is_leased_in_the_order_of_the_tenants_turns(queue: Queue, make_worker: MakeWorker) -> None:
    await queue.submit(tokens(*"abcd", tenant="one"), WIDE)
    await queue.submit(tokens(*"wxyz", tenant="two"), WIDE)
    worker = make_worker("w1")
    assert sources(worker.take(5, 0.0, share=True)) == list("awbxc")
    assert sources(worker.take(5, 0.0, share=True)) == list("ydz")


# --- crashes ---------------------------------------------------------------------------------------------------------


async def test_jobs_in_hand_that_were_not_begun_do_not_count_as_tried(queue: Queue, make_worker: MakeWorker) -> None:
    await queue.submit(tokens(*"abc"), WIDE)
    for number in range(3):  # each worker crashes while it runs "a"
        leases = make_worker(f"crash{number}", max_deliveries=10).take(16, 0.0, share=True)
        assert sources(leases) == list("abc")
        assert [lease.deliveries for lease in leases] == [number + 1, 1, 1]
        await asyncio.sleep(1.3 * LEASE_S)

    heir = make_worker("heir", max_deliveries=2)
    leases = heir.take(16, 0.0, share=True)
    assert sources(leases) == ["b", "c"]
    assert heir.finish_all([FinishedJob(lease, DONE, 0, 1.0, now_ms()) for lease in leases]) == [True, True]
    replies = []
    while len(replies) < 3:
        replies += await queue.replies(1.0)
    codes = [reply.body.code for reply in replies if isinstance(reply.body, Failed)]
    assert codes == ["poisoned"]


async def test_a_job_begun_later_in_a_share_counts_as_tried(queue: Queue, make_worker: MakeWorker) -> None:
    await queue.submit(tokens(*"abc"), WIDE)
    crashed = make_worker("crashed")
    leases = crashed.take(16, 0.0, share=True)
    crashed.begin(leases[0])
    crashed.finish(leases[0], DONE)
    crashed.begin(leases[1])
    await asyncio.sleep(1.3 * LEASE_S)
    assert [(lease.deliveries) for lease in make_worker("heir").take(16, 0.0, share=True)] == [2, 1]


async def test_a_job_that_crashes_its_worker_at_once_is_found_out(
    queue: Queue, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins while the answer of the job before it has not gone out, so at first only that one counts as tried."""
    monkeypatch.setattr("service.worker.batch.SEND_AFTER_S", 1000.0)
    await queue.submit(tokens("a", "killer", "c"), WIDE)

    def crash_at_the_killer(name: str) -> list[tuple[str, int]]:
        consumer = make_worker(name)
        leases = consumer.take(16, 0.0, share=True)
        batch, context = JobBatch(), WorkerContext(consumer, StopSignal())
        batch.start(leases, context)
        while (lease := batch.next()) is not None and sources([lease]) != ["killer"]:
            batch.finished(FinishedJob(lease, DONE, 0, 1.0, now_ms()))
        return [(sources([lease])[0], lease.deliveries) for lease in leases]

    assert crash_at_the_killer("first") == [("a", 1), ("killer", 1), ("c", 1)]
    await asyncio.sleep(1.3 * LEASE_S)
    assert crash_at_the_killer("second") == [("a", 2), ("killer", 1), ("c", 1)]
    assert [reply.body for reply in await queue.replies(1.0)] == [DONE]  # that of "a" went out at once
    await asyncio.sleep(1.3 * LEASE_S)
    assert crash_at_the_killer("third") == [("killer", 2), ("c", 1)]
    await asyncio.sleep(1.3 * LEASE_S)
    assert crash_at_the_killer("fourth") == [("c", 1)]
    (poisoned, last) = [*(await queue.replies(1.0)), *(await queue.replies(1.0))][:2]
    assert isinstance(poisoned.body, Failed)
    assert poisoned.body.code == "poisoned"
    assert last.body == DONE


async def test_what_a_worker_without_marks_held_counts_as_tried(queue: Queue, make_worker: MakeWorker) -> None:
    """A worker of an older version marks nothing."""
    await queue.submit(tokens(*"ab"), WIDE)
    assert len(make_worker("old").take(2, 0.0)) == 2
    await asyncio.sleep(1.3 * LEASE_S)
    assert [lease.deliveries for lease in make_worker("heir").take(16, 0.0, share=True)] == [2, 2]


# --- handing back ----------------------------------------------------------------------------------------------------


async def test_jobs_handed_back_are_next_in_their_order(queue: Queue, make_worker: MakeWorker) -> None:
    busy, idle = make_worker("busy"), make_worker("idle")
    await queue.submit(tokens(*"abcdef"), WIDE)
    leases = busy.take(4, 0.0, share=True)
    assert busy.hand_back(leases[1:]) == 3
    assert busy.renew() == []

    taken = idle.take(16, 0.0, share=True)
    assert sources(taken) == list("bcdef")
    assert {lease.deliveries for lease in taken} == {1}
    assert busy.finish(leases[1], DONE) is False  # it is another's now
    assert idle.finish(taken[0], DONE) is True
    assert busy.hand_back(leases[1:2]) == 0
    for lease in taken[1:]:
        assert idle.finish(lease, DONE)
    assert busy.finish(leases[0], DONE)
    assert (await queue.load(EXECUTE_QUEUE)).depth == 0
    left = {key.decode() for key in await queue.client.keys("plaudit:*")}
    assert not [key for key in left if key.split(":")[1] in ("job", "waiters", "seats", "waiting", "turns", "clock")]


async def test_jobs_handed_back_cost_their_tenant_no_turns(queue: Queue, make_worker: MakeWorker) -> None:
    worker = make_worker("w")
    await queue.submit(tokens(*"abcd", tenant="one"), WIDE)
    leases = worker.take(3, 0.0, share=True)
    await queue.submit(tokens(*"wxyz", tenant="two"), WIDE)
    worker.hand_back(leases[1:])
    assert sources(worker.take(4, 0.0, share=True)) == list("bcwd")  # it had one turn, and two began at the third


class RunnerOfOne:
    """An executor's batch over a real queue, with a program that ends when the test says so."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.stop = StopSignal()
        self.batch = JobBatch()
        self.context = WorkerContext(consumer, self.stop)
        self.begun: list[str] = []
        self.gate = threading.Event()

    def step(self, limit: int = 16) -> None:
        leases = self.consumer.take(limit, 0.0, share=True)
        self.batch.start(leases, self.context)
        while (lease := self.batch.next()) is not None:
            self.begun += sources([lease])
            if self.begun[-1].startswith("long"):
                self.gate.wait(30)
            self.batch.finished(FinishedJob(lease, DONE, 0, 1.0, now_ms()))
        self.batch.close()


async def test_a_long_job_keeps_neither_answers_nor_jobs_waiting(queue: Queue, make_worker: MakeWorker) -> None:
    await queue.submit(tokens("a", "long", "b", "c"), WIDE)
    busy, idle = RunnerOfOne(make_worker("busy")), make_worker("idle")
    step = asyncio.create_task(asyncio.to_thread(busy.step))
    try:
        replies = []
        while not replies:  # that of "a", while "long" runs
            replies += await queue.replies(1.0)
        taken: list[Lease] = []
        while len(taken) < 2:
            taken += await asyncio.to_thread(idle.take, 16, 0.1, share=True)
        assert sources(taken) == ["b", "c"]
        assert not step.done()
        assert busy.begun == ["a", "long"]
    finally:
        busy.gate.set()
        await step


async def test_answers_of_quick_jobs_go_out_together(queue: Queue, make_worker: MakeWorker) -> None:
    await queue.submit(tokens(*"abcdefgh"), WIDE)
    runner = RunnerOfOne(make_worker("w"))
    before = (await queue.client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await asyncio.to_thread(runner.step)
    after = (await queue.client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert runner.begun == list("abcdefgh")
    assert after - before < len(runner.begun)
    replies = []
    while len(replies) < len(runner.begun):
        replies += await queue.replies(1.0)
    assert all(reply.body == DONE for reply in replies)


async def test_jobs_in_hand_go_back_when_the_worker_is_told_to_end(queue: Queue, make_worker: MakeWorker) -> None:
    await queue.submit(tokens("long", "b", "c"), WIDE)
    runner = RunnerOfOne(make_worker("w"))
    step = asyncio.create_task(asyncio.to_thread(runner.step))
    await asyncio.to_thread(wait_for, lambda: runner.begun, what="the first job")
    runner.stop.asked = True
    runner.gate.set()
    await step
    assert runner.begun == ["long"]
    assert sources(make_worker("heir").take(16, 0.0, share=True)) == ["b", "c"]


async def test_a_cancelled_job_in_hand_is_not_begun(queue: Queue, make_worker: MakeWorker) -> None:
    jobs = tokens(*"abc")
    await queue.submit(jobs, WIDE)
    consumer = make_worker("w")
    batch, context = JobBatch(), WorkerContext(consumer, StopSignal())
    batch.start(consumer.take(16, 0.0, share=True), context)
    assert await queue.leave(EXECUTE_QUEUE, {"t-b": jobs["t-b"].id}) == 1
    for lease in consumer.renew():
        batch.cancel(lease)
    begun = []
    while (lease := batch.next()) is not None:
        begun += sources([lease])
        batch.finished(FinishedJob(lease, DONE, 0, 1.0, now_ms()))
    assert begun == ["a", "c"]


def test_a_batch_is_as_large_as_its_jobs_are_quick() -> None:
    pace = JobPace()
    assert pace.capacity() == JobBatch().capacity() == 1  # nothing is known yet
    pace.mean_s = HAND_BACK_AFTER_S / 8.5
    assert pace.capacity() == 8
    pace.mean_s = 1e-6
    assert pace.capacity() == 16
    for _ in range(20):
        pace.took(10.0)
    assert pace.capacity() == 1


async def test_a_full_memory_fails_only_the_large_answers_of_a_batch(
    queue: Queue, make_worker: MakeWorker, broker: Broker
) -> None:
    await queue.submit(tokens("small", "large"), WIDE)
    consumer = make_worker("w")
    context = WorkerContext(consumer, StopSignal())
    small, large = consumer.take(2, 0.0, share=True)
    text = Executed(Report(Verdict.PASSED, 1, 1, (), "split", "strong"), "x" * 10_000)
    with broker.client() as client:
        client.config_set("maxmemory", "1")
    endings = [FinishedJob(small, DONE, 0, 1.0, now_ms()), FinishedJob(large, text, 0, 1.0, now_ms())]
    await asyncio.to_thread(context.answer_all, endings)
    replies = []
    while len(replies) < 2:
        replies += await queue.replies(1.0)
    by_id = {reply.job: reply.body for reply in replies}
    assert by_id[small.id] == DONE
    refused = by_id[large.id]
    assert isinstance(refused, Failed)
    assert (refused.state, refused.code) == (JobState.FAILED, "answer_refused")
