"""The queue's promises against a real Redis: bounded, joined, answered once, redelivered, and nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio

from plaudit.errors import BrokerUnavailable, Conflict, NotFound, Overloaded, RevisionMoved
from service.api.dispatch.request_context import RequestContext
from service.api.stores.durable_requests import DurableRequests, Perform
from service.jobs import Failed, Job, JobState, Scored, ScoreTask, content_hash, encode
from service.queue import keys
from service.queue.cached_scores import cached_score_keys
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer, FinishedJob
from service.queue.heartbeat import Heartbeat
from service.queue.producer import Bound, Queue, Remembered
from service.queue.protocol import now_ms
from support.broker import Broker

QUEUE = "score:default"
WIDE = Bound(10_000, 1e9)
LEASE_S = 0.2
DONE = Scored("r", [1.0], [1], [False], [None], [None])


def job(name: str, *, lane: Any = "normal", cost: float = 1.0, left_ms: int = 60_000, queue: str = QUEUE) -> Job:
    task = encode(ScoreTask("default", "r", name, ["c"]))
    return Job(content_hash(task), "score", queue, lane, task, cost, now_ms() + left_ms)


def tokens(*jobs: Job, mark: str = "t") -> dict[str, Job]:
    return {f"{mark}{at}": one for at, one in enumerate(jobs)}


@pytest.fixture
async def make_queue(broker: Broker) -> AsyncIterator[Callable[[str], Queue]]:
    """API processes, each with its own connections and reply list."""
    clients: list[redis.asyncio.Redis] = []

    def make(channel: str) -> Queue:
        clients.append(connect_async(broker.url, max_connections=32))
        return Queue(clients[-1], "plaudit", channel)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def queue(make_queue: Callable[[str], Queue]) -> Queue:
    return make_queue("api")


@pytest.fixture
def make_worker(broker: Broker) -> Iterator[Callable[..., Consumer]]:
    with ExitStack() as ends:

        def make(name: str, queues: tuple[str, ...] = (QUEUE,), max_deliveries: int = 2) -> Consumer:
            client = connect(broker.url)
            ends.callback(client.close)
            worker = Consumer(client, "plaudit", name, queues, lease_s=LEASE_S, max_deliveries=max_deliveries)
            worker.ensure_groups()
            return worker

        yield make


@pytest.fixture
def worker(make_worker: Callable[..., Consumer]) -> Consumer:
    return make_worker("w1")


def left_in(broker: Broker) -> set[str]:
    client = broker.client()
    try:
        return {key.decode() for key in client.keys("*")}
    finally:
        client.close()


def prompts(leases: list[Any]) -> list[str]:
    return [lease.task.prompt for lease in leases]


# --- admission -------------------------------------------------------------------------------------------------------


async def test_a_request_is_admitted_whole_or_not_at_all(queue: Queue) -> None:
    bound = Bound(3, 1e9)
    await queue.submit(tokens(job("a"), job("b")), bound)
    with pytest.raises(Overloaded, match="holds 2 jobs"):
        await queue.submit(tokens(job("c"), job("d"), mark="u"), bound)
    assert (await queue.load(QUEUE)).depth == 2

    await queue.submit(tokens(job("c"), mark="v"), bound)
    assert (await queue.load(QUEUE)).depth == 3


async def test_work_is_admitted_only_if_none_of_it_is_remembered(queue: Queue) -> None:
    stored = [f"{queue.keys.prefix}score:{name}" for name in "ab"]
    await queue.client.set(stored[1], b"done")
    with pytest.raises(Remembered) as known:
        await queue.submit(tokens(job("a"), job("b")), WIDE, unless=stored)
    assert known.value.frames == [None, b"done"]
    assert (await queue.load(QUEUE)).depth == 0

    assert await queue.submit(tokens(job("a"), job("b")), WIDE, unless=stored[:1]) == {}
    assert (await queue.load(QUEUE)).depth == 2

    await queue.client.hset(queue.keys.active(QUEUE), "revision", "newer")  # of an older one nothing is told
    with pytest.raises(RevisionMoved):
        await queue.submit(tokens(job("c")), WIDE, unless=stored)


async def test_cost_is_a_bound_of_its_own(queue: Queue) -> None:
    bound = Bound(100, 10.0)
    await queue.submit(tokens(job("a", cost=6.0)), bound)
    with pytest.raises(Overloaded, match=r"cost 6 \(at most 10\)"):
        await queue.submit(tokens(job("b", cost=4.5)), bound)
    await queue.submit(tokens(job("c", cost=4.0)), bound)
    assert (await queue.load(QUEUE)).cost == 10.0


async def test_one_job_larger_than_the_bound_may_run_alone(queue: Queue) -> None:
    await queue.submit(tokens(job("large", cost=50.0)), Bound(100, 10.0))
    with pytest.raises(Overloaded):
        await queue.submit(tokens(job("small", cost=0.5)), Bound(100, 10.0))


async def test_bounds_hold_however_many_ask_at_once(make_queue: Callable[[str], Queue]) -> None:
    queues = [make_queue(f"api{at}") for at in range(4)]

    async def ask(at: int) -> bool:
        try:
            jobs = tokens(job(f"{at} a", cost=2.0), job(f"{at} b", cost=2.0), job(f"{at} c", cost=2.0))
            await queues[at % 4].submit(jobs, Bound(50, 70.0))
        except Overloaded:
            return False
        return True

    admitted = await asyncio.gather(*map(ask, range(60)))

    load = await queues[0].load(QUEUE)
    assert sum(admitted) == 11
    assert (load.depth, load.cost) == (33, 66.0)


async def test_an_empty_submission_is_nothing(queue: Queue, broker: Broker) -> None:
    assert await queue.submit({}, WIDE) == {}
    assert await queue.leave(QUEUE, {}) == 0
    assert left_in(broker) == set()


# --- joining and recalling -------------------------------------------------------------------------------------------


async def test_identical_jobs_are_one_and_everyone_hears_the_answer(
    make_queue: Callable[[str], Queue], worker: Consumer
) -> None:
    queues = [make_queue(f"api{at}") for at in range(3)]
    for one in queues:
        assert await one.submit(tokens(job("same")), Bound(1, 1e9)) == {}

    leases = worker.take(10)
    assert prompts(leases) == ["same"]
    assert worker.finish(leases[0], DONE) is True

    assert [[reply.body for reply in await one.replies(1.0)] for one in queues] == [[DONE]] * 3


async def test_one_process_hears_an_answer_once_however_often_it_asked(queue: Queue, worker: Consumer) -> None:
    await queue.submit({"t1": job("same")}, WIDE)
    await queue.submit({"t2": job("same")}, WIDE)
    (lease,) = worker.take(1)
    worker.finish(lease, DONE)
    assert len(await queue.replies(1.0)) == 1
    assert await queue.replies(0.05) == []


async def test_joining_a_job_gives_it_the_later_deadline(queue: Queue, worker: Consumer) -> None:
    await queue.submit({"t1": job("same", left_ms=1)}, WIDE)
    later = job("same", left_ms=60_000)
    await queue.submit({"t2": later}, WIDE)
    await queue.submit({"t3": job("same", left_ms=30_000)}, WIDE)
    await asyncio.sleep(0.3)
    assert await queue.expire(QUEUE) == 0
    assert [lease.deadline_ms for lease in worker.take(1)] == [later.deadline_ms]


async def test_joining_a_waiting_job_gives_it_the_higher_lane(queue: Queue, worker: Consumer) -> None:
    low = [job(f"low {at}", lane="low") for at in range(3)]
    await queue.submit(tokens(job("normal"), *low), WIDE)
    await queue.submit({"u1": job("low 2", lane="high"), "u2": job("low 1", lane="normal")}, WIDE)
    await queue.submit({"v1": job("low 2", lane="low")}, WIDE)  # lowers nothing

    assert (await queue.load(QUEUE)).depth == 4
    assert prompts(worker.take(1)) == ["low 2"]
    assert prompts([lease for _ in range(3) for lease in worker.take(1)]) == ["normal", "low 1", "low 0"]


async def test_joining_a_job_that_has_begun_leaves_it_where_it_is(
    queue: Queue, worker: Consumer, broker: Broker
) -> None:
    await queue.submit({"t1": job("same", lane="low")}, WIDE)
    (lease,) = worker.take(1)
    await queue.submit({"t2": job("same", lane="high")}, WIDE)
    assert worker.take(1, block_s=0.0) == []
    assert worker.renew() == []
    assert worker.finish(lease, DONE) is True
    assert [reply.body for reply in await queue.replies(1.0)] == [DONE]
    assert not {key for key in left_in(broker) if "seats" in key or "waiting" in key or "turns" in key}


async def test_a_worker_that_just_read_the_old_entry_of_a_lifted_job_goes_on(queue: Queue, worker: Consumer) -> None:
    await queue.submit({"t1": job("same", lane="low")}, WIDE)
    stream = queue.keys.stream(QUEUE, "low")
    ((_, entries),) = worker.client.xreadgroup(keys.GROUP, worker.name, {stream: ">"}, count=1)
    await queue.submit({"t2": job("same", lane="high")}, WIDE)

    assert worker._admit([(stream, entries[0][0].decode())]) == []
    (lease,) = worker.take(1)
    assert (lease.lane, lease.deliveries) == ("high", 1)
    assert worker.finish(lease, DONE) is True
    assert worker.client.xpending(stream, keys.GROUP)["pending"] == 0


async def test_a_cached_reply_comes_back_at_once_unless_it_is_not_wanted(queue: Queue, worker: Consumer) -> None:
    one = job("same")
    await queue.submit(tokens(one), WIDE)
    worker.finish(worker.take(1)[0], DONE, cache_ms=60_000)

    recalled = await queue.submit(tokens(one, job("new")), Bound(1, 1e9))
    assert {key: reply.body for key, reply in recalled.items()} == {one.id: DONE}
    assert await queue.submit(tokens(one), WIDE, use_cache=False) == {}
    assert (await queue.load(QUEUE)).depth == 2


async def test_what_is_not_cached_is_done_again_but_is_kept_for_a_while(queue: Queue, worker: Consumer) -> None:
    one = job("same")
    await queue.submit(tokens(one), WIDE)
    worker.finish(worker.take(1)[0], DONE)

    assert [reply and reply.body for reply in (await queue.look_up([one.id])).values()] == [DONE]
    assert await queue.submit(tokens(one), WIDE) == {}
    assert await queue.look_up([one.id]) == {}
    assert prompts(worker.take(1)) == ["same"]


async def test_a_job_that_vanished_is_known_to_have_vanished(queue: Queue) -> None:
    assert await queue.look_up(["0" * 64]) == {"0" * 64: None}


# --- deadlines and leaving -------------------------------------------------------------------------------------------


async def test_a_job_past_its_deadline_is_not_worked_on(queue: Queue, worker: Consumer) -> None:
    await queue.submit(tokens(job("late", left_ms=-10), job("on time")), WIDE)
    assert prompts(worker.take(10)) == ["on time"]
    (reply,) = await queue.replies(1.0)
    assert isinstance(reply.body, Failed)
    assert (reply.body.state, reply.body.code) == (JobState.TIMEOUT, "deadline")


async def test_a_job_that_no_worker_comes_for_ends_at_its_deadline(queue: Queue) -> None:
    await queue.submit(tokens(job("late", left_ms=-10), job("on time")), WIDE)
    assert await queue.expire(QUEUE, grace_ms=0) == 1
    (reply,) = await queue.replies(1.0)
    assert isinstance(reply.body, Failed)
    assert reply.body.state is JobState.TIMEOUT
    assert (await queue.load(QUEUE)).depth == 1


async def test_leaving_takes_back_what_nobody_else_waits_for(
    make_queue: Callable[[str], Queue], worker: Consumer
) -> None:
    one, two = make_queue("one"), make_queue("two")
    mine, ours = job("mine"), job("ours")
    await one.submit({"t1": mine, "t2": ours}, WIDE)
    await two.submit({"t3": ours}, WIDE)

    assert await one.leave(QUEUE, {"t1": mine.id, "t2": ours.id}) == 1
    assert prompts(worker.take(10)) == ["ours"]


async def test_a_worker_learns_that_nobody_waits_for_what_it_has_begun(queue: Queue, worker: Consumer) -> None:
    one = job("begun")
    await queue.submit({"t1": one}, WIDE)
    (lease,) = worker.take(1)
    assert worker.renew() == []
    assert await queue.leave(QUEUE, {"t1": one.id}) == 1
    assert worker.renew() == [lease]
    assert worker.finish(lease, DONE) is False

    await queue.submit({"t2": one}, WIDE)
    (anew,) = worker.take(1)
    assert anew.deliveries == 1
    assert worker.finish(anew, DONE) is True


async def test_a_worker_can_ask_who_waits_for_what_it_holds_and_until_when(queue: Queue, worker: Consumer) -> None:
    one, other = job("one", left_ms=10_000), job("other")
    await queue.submit({"t1": one, "t2": other}, WIDE)
    leases = worker.take(2)
    assert worker.deadlines(leases) == [one.deadline_ms, other.deadline_ms]

    later = job("one", left_ms=60_000)
    await queue.submit({"t3": later}, WIDE)
    await queue.leave(QUEUE, {"t2": other.id})
    assert worker.deadlines(leases) == [later.deadline_ms, None]

    await queue.submit({"t4": other}, WIDE)  # the same work again is another delivery
    assert worker.deadlines(leases) == [later.deadline_ms, None]


async def test_a_worker_takes_only_of_the_lanes_that_it_asks_for(queue: Queue, worker: Consumer) -> None:
    await queue.submit(tokens(job("normal"), job("high", lane="high")), WIDE)

    assert worker.take(10, 0.0, takes=lambda queue, lane: False) == []
    assert prompts(worker.take(10, 0.0, takes=lambda queue, lane: lane == "high")) == ["high"]
    assert prompts(worker.take(10, 0.0, takes=lambda queue, lane: lane == "high")) == []
    assert prompts(worker.take(10, 0.0)) == ["normal"]


async def test_what_a_crashed_worker_held_is_found_once_its_lane_is_asked_for(
    queue: Queue, make_worker: Callable[..., Consumer]
) -> None:
    await queue.submit(tokens(job("normal")), WIDE)
    dead, heir = make_worker("dead"), make_worker("heir")
    assert prompts(dead.take(1)) == ["normal"]
    await asyncio.sleep(1.5 * LEASE_S)

    assert heir.take(10, 0.0, takes=lambda queue, lane: lane == "high") == []
    assert prompts(heir.take(10, 0.0)) == ["normal"]


async def test_a_worker_remembers_scores_and_replaces_none(queue: Queue, worker: Consumer) -> None:
    names = cached_score_keys(worker.keys, "r", "p", "error", ["a", "b"])
    await queue.client.set(names[0], b"before")
    await queue.submit(tokens(job("group")), WIDE)
    (lease,) = worker.take(1, 0.0)
    worker.remember(lease, {names[0]: b"after", names[1]: b"new"})
    assert await queue.stored(names) == [b"before", b"new"]
    assert 0 < await queue.client.ttl(names[1]) <= 120


async def test_a_job_that_cannot_be_read_ends_and_takes_no_worker_along(queue: Queue, worker: Consumer) -> None:
    broken = msgspec.structs.replace(job("foreign"), task=b"\xc1")
    await queue.submit({"t1": broken}, WIDE)
    assert worker.take(1) == []
    (reply,) = await queue.replies(2.0)
    assert (reply.body.state, reply.body.code) == (JobState.FAILED, "unreadable")


async def test_a_late_leave_does_not_take_a_newer_callers_job(queue: Queue) -> None:
    one = job("same")
    await queue.submit({"old": one}, WIDE)
    await queue.submit({"new": one}, WIDE)
    assert await queue.leave(QUEUE, {"old": one.id}) == 0
    assert await queue.leave(QUEUE, {"new": one.id}) == 1


async def test_a_killed_workers_consumer_is_removed_once_its_jobs_are_taken_over(
    queue: Queue, make_worker: Callable[..., Consumer]
) -> None:
    dead, alive = make_worker("dead"), make_worker("alive")
    await queue.submit(tokens(job("first"), job("second")), WIDE)
    assert len(dead.take(1)) == 1

    def consumers() -> set[str]:
        names = alive.client.xinfo_consumers(queue.keys.stream(QUEUE, "normal"), keys.GROUP)
        return {consumer["name"].decode() for consumer in names}

    for worker in (dead, alive):
        Heartbeat(worker, "score", {}, every_s=60, stuck_after_s=60, on_cancelled=lambda lease: None).beat()
    assert alive.sweep(0) == 0
    alive.client.zadd(queue.keys.workers, {"dead": now_ms() - 1})  # as if it had been killed some time ago
    alive.sweep(60_000)
    assert alive.client.hexists(queue.keys.workers_info, "dead")  # its announcement is kept for a while
    alive.sweep(0)
    assert not alive.client.hexists(queue.keys.workers_info, "dead")
    assert "dead" in consumers()  # it holds a job

    await asyncio.sleep(LEASE_S * 1.5)
    assert sorted(prompts(alive.take(2))) == ["first", "second"]
    assert alive.sweep(0) >= 1
    assert consumers() == {"alive"}
    alive.client.flushall()
    assert alive.sweep(0) == 0  # without a group there is none to remove


# --- endings and redelivery ------------------------------------------------------------------------------------------


async def test_the_first_ending_wins(queue: Queue, make_worker: Callable[..., Consumer]) -> None:
    slow, quick = make_worker("slow"), make_worker("quick")
    await queue.submit(tokens(job("a")), WIDE)
    (first,) = slow.take(1)
    await asyncio.sleep(LEASE_S * 1.5)
    (second,) = quick.take(1)

    assert (second.id, second.deliveries) == (first.id, 2)
    assert quick.finish(second, DONE) is True
    assert slow.finish(first, Failed(JobState.FAILED, "internal", "x", True)) is False
    assert [reply.body for reply in await queue.replies(1.0)] == [DONE]
    assert await queue.replies(0.05) == []


async def test_jobs_of_a_batch_end_together_and_each_for_itself(queue: Queue, worker: Consumer) -> None:
    """Also when the broker has forgotten the script that ends them."""
    await queue.submit(tokens(*(job(name) for name in "abc")), WIDE)
    leases = worker.take(3)
    assert worker.finish(leases[1], DONE)
    await queue.replies(1.0)
    worker.client.script_flush()

    endings = [FinishedJob(lease, DONE, 0, 1.0, now_ms()) for lease in leases]
    assert worker.finish_all(endings) == [True, False, True]
    told = []
    while len(told) < 2:
        told += [reply.job for reply in await queue.replies(1.0)]
    assert sorted(told) == sorted(lease.id for lease in (leases[0], leases[2]))
    assert (await queue.load(QUEUE)).depth == 0


async def test_the_ending_of_an_old_delivery_does_not_end_the_same_work_begun_anew(
    queue: Queue, worker: Consumer
) -> None:
    await queue.submit({"t1": job("same", left_ms=500)}, WIDE)
    (old,) = worker.take(1)
    await asyncio.sleep(0.6)
    assert await queue.expire(QUEUE, grace_ms=0) == 1
    await queue.submit({"t2": job("same")}, WIDE)
    (new,) = worker.take(1)

    assert old.id == new.id
    assert old.key != new.key
    assert worker.finish(old, DONE) is False
    assert worker.finish(new, DONE) is True


async def test_a_worker_that_keeps_its_lease_keeps_its_job(queue: Queue, make_worker: Callable[..., Consumer]) -> None:
    busy, idle = make_worker("busy"), make_worker("idle")
    await queue.submit(tokens(job("a")), WIDE)
    (lease,) = busy.take(1)
    with Heartbeat(busy, "score", {"models": []}, every_s=LEASE_S / 4, stuck_after_s=60, on_cancelled=print):
        until = time.monotonic() + LEASE_S * 4
        while time.monotonic() < until:
            assert await asyncio.to_thread(idle.take, 1, 0.05) == []
        assert [one.id for one in await queue.workers()] == ["busy"]
        busy.finish(lease, DONE)
    assert await queue.workers() == []


async def test_a_worker_that_is_stuck_loses_its_announcement_and_its_job(
    queue: Queue, make_worker: Callable[..., Consumer]
) -> None:
    stuck, other = make_worker("stuck"), make_worker("other")
    await queue.submit(tokens(job("a")), WIDE)
    stuck.take(1)
    with Heartbeat(stuck, "score", {"models": []}, every_s=LEASE_S / 4, stuck_after_s=LEASE_S, on_cancelled=print):
        await asyncio.sleep(LEASE_S * 4)
        assert await queue.workers() == []
        assert prompts(await asyncio.to_thread(other.take, 1)) == ["a"]


async def test_a_worker_does_not_take_its_own_work_twice(queue: Queue, worker: Consumer) -> None:
    await queue.submit(tokens(job("a"), job("b")), WIDE)
    (first,) = worker.take(1)
    await asyncio.sleep(LEASE_S * 1.5)
    assert prompts(worker.take(10)) == ["b"]

    worker.drop(first)
    await asyncio.sleep(LEASE_S * 1.5)
    assert [lease.key for lease in worker.take(10)] == [first.key]


async def test_the_abandoned_are_found_behind_any_number_of_those_in_hand(
    queue: Queue, make_worker: Callable[..., Consumer]
) -> None:
    busy, dead, finder = make_worker("busy"), make_worker("dead"), make_worker("finder")
    await queue.submit(tokens(*(job(str(at)) for at in range(31))), WIDE)
    assert len(busy.take(30)) == 30
    assert prompts(dead.take(1)) == ["30"]
    until = time.monotonic() + 5
    found: list[str] = []
    while not found and time.monotonic() < until:
        busy.renew()
        found = prompts(finder.take(1, 0.02))
    assert found == ["30"]


async def test_a_job_that_no_worker_survives_is_given_up(queue: Queue, make_worker: Callable[..., Consumer]) -> None:
    await queue.submit(tokens(job("poison")), WIDE)
    for name in ("first", "second"):
        assert prompts(make_worker(name).take(1)) == ["poison"]
        await asyncio.sleep(LEASE_S * 1.5)

    assert make_worker("third").take(1, 0.02) == []
    (reply,) = await queue.replies(1.0)
    assert isinstance(reply.body, Failed)
    assert (reply.body.state, reply.body.code, reply.body.retryable) == (JobState.FAILED, "poisoned", False)


# --- order and waiting -----------------------------------------------------------------------------------------------


async def test_lanes_come_first_over_all_queues(queue: Queue, make_worker: Callable[..., Consumer]) -> None:
    worker = make_worker("w", ("one", "two"))
    for name in ("one", "two"):
        for lane in ("low", "normal", "high"):
            await queue.submit({f"{name}{lane}": job(f"{lane} {name}", lane=lane, queue=name)}, WIDE)

    leases = worker.take(10)

    assert [lease.lane for lease in leases] == ["high", "high", "normal", "normal", "low", "low"]
    assert {lease.queue for lease in leases[:2]} == {"one", "two"}


async def test_a_blocked_read_ends_before_the_socket_gives_up(broker: Broker) -> None:
    timeout_s = keys.BLOCK_S + 0.3
    async_client = connect_async(broker.url, socket_timeout_s=timeout_s)
    client = connect(broker.url, socket_timeout_s=timeout_s)
    queue = Queue(async_client, "plaudit", "api")
    worker = Consumer(client, "plaudit", "w", [QUEUE], lease_s=5, max_deliveries=2)
    worker.ensure_groups()
    try:
        for _ in range(3):
            assert await queue.replies(keys.BLOCK_S) == []
        began = time.monotonic()
        assert await asyncio.to_thread(worker.take, 1, 60.0) == []  # asks for a minute, gets BLOCK_S
        assert time.monotonic() - began < keys.BLOCK_S + 0.3
    finally:
        await async_client.aclose()
        client.close()


async def test_a_broker_that_comes_back_empty_gets_its_groups_again(
    queue: Queue, worker: Consumer, broker: Broker
) -> None:
    broker.kill()
    with pytest.raises(BrokerUnavailable):
        await queue.ping()
    with pytest.raises(redis.RedisError):
        worker.take(1)
    broker.start()
    await queue.submit(tokens(job("a")), WIDE)
    assert prompts(worker.take(1, 0.02) + worker.take(1, 0.5)) == ["a"]


async def test_what_was_acknowledged_survives_the_death_of_a_broker_with_a_log() -> None:
    with Broker(append_only=True, options=("--appendfsync", "always")) as broker:
        async_client, client = connect_async(broker.url), connect(broker.url)
        try:
            queue = Queue(async_client, "plaudit", "api")
            await queue.submit(tokens(job("a")), WIDE)
            broker.kill()
            broker.start()
            worker = Consumer(client, "plaudit", "w", [QUEUE], lease_s=5, max_deliveries=2)
            worker.ensure_groups()
            assert prompts(worker.take(1)) == ["a"]
        finally:
            await async_client.aclose()
            client.close()


async def test_a_full_memory_is_overload_and_not_an_outage(broker: Broker, queue: Queue) -> None:
    client = broker.client()
    client.config_set("maxmemory", "1")
    client.close()
    with pytest.raises(Overloaded, match="memory is full"):
        await queue.submit(tokens(job("a")), WIDE)


async def test_when_all_is_done_nothing_is_left_but_caches(
    queue: Queue, make_worker: Callable[..., Consumer], broker: Broker
) -> None:
    worker = make_worker("w")
    jobs = [
        job(str(at), lane=lane, cost=0.1, left_ms=-10 if at == 5 else 60_000)
        for at, lane in enumerate(["high", "normal", "low"] * 3)
    ]
    with Heartbeat(worker, "score", {"models": []}, every_s=10, stuck_after_s=60, on_cancelled=print):
        await queue.submit(tokens(*jobs), WIDE)
        await queue.leave(QUEUE, {"t8": jobs[8].id})
        for at, lease in enumerate(worker.take(100)):
            body = DONE if at % 2 else Failed(JobState.FAILED, "x", "x", True)
            worker.finish(lease, body, cache_ms=1000 if at % 2 else 0)
        await queue.replies(1.0)

    load = await queue.load(QUEUE)
    assert (load.depth, load.cost, load.oldest_ms) == (0, 0.0, 0.0)
    assert load.drained == pytest.approx(0.8)
    kept = {key for key in left_in(broker) if not key.startswith(("plaudit:cache:", "plaudit:last:"))}
    lanes = {f"plaudit:stream:{QUEUE}:{lane}" for lane in ("high", "normal", "low")}  # empty, with their group
    assert kept == lanes | {f"plaudit:load:{QUEUE}", "plaudit:bytes:results"}  # the latter as long as the caches
    client = broker.client()
    try:
        assert [client.xlen(lane) for lane in lanes] == [0, 0, 0]
        assert all(client.xpending(lane, "workers")["pending"] == 0 for lane in lanes)
        assert all(client.xinfo_consumers(lane, "workers") == [] for lane in lanes)
        assert all(client.pttl(key) > 0 for key in left_in(broker) - kept)
    finally:
        client.close()


# --- durable requests ------------------------------------------------------------------------------------------------


class Item:
    """A finished item, as far as durable requests look at it."""

    def __init__(self, value: int) -> None:
        self.value = value

    def model_dump(self, mode: str) -> dict[str, int]:
        return {"value": self.value}


MakeRequests = Callable[[str, Perform], DurableRequests]


async def test_a_request_that_breaks_our_own_code_ends_and_says_so(make_requests: MakeRequests) -> None:
    async def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("a bug")

    requests = make_requests("api", broken)
    await requests.start("r1", "/score", b"{}", "", now_ms() + 10_000, 1)
    entry = await asyncio.wait_for(requests.wait("r1", ""), 5)
    assert entry.state == "failed"
    assert entry.problem is not None
    assert (entry.problem.code, entry.problem.status) == ("internal", 500)


async def test_without_its_replica_a_redis_acknowledges_no_request_and_no_cancellation(
    make_requests: MakeRequests,
) -> None:
    async def hang(*_: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    requests = make_requests("api", hang)
    requests.queue.num_replicas = 1
    deadline_ms = now_ms() + 10_000
    await requests.start("waited for", "/score", b"{}", "tenant", deadline_ms, 1, brief=True)
    with pytest.raises(BrokerUnavailable, match="redis_replicas"):
        await requests.start("asynchronous", "/score", b"{}", "tenant", deadline_ms, 1)
    with pytest.raises(BrokerUnavailable, match="redis_replicas"):
        await requests.cancel("asynchronous", "tenant")
    assert (await requests.status("asynchronous", "tenant", "0-0", 0.0)).state == "cancelled"
    await requests.close()


async def test_an_ending_that_redis_forgot_is_made_again_by_its_owner(
    make_requests: MakeRequests, broker: Broker
) -> None:
    """As after a failover to a replica that had missed it: the request runs, and its owner lives."""
    runs = 0

    async def work(*_: Any) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        return {"runs": runs}

    owner, other = make_requests("a", work), make_requests("b", work)
    await owner.start("r1", "/score", b"{}", "tenant", now_ms() + 10_000, 1)
    assert (await asyncio.wait_for(owner.wait("r1", "tenant"), 5)).answer == {"runs": 1}

    def forget(**fields: Any) -> None:
        with broker.client() as client:
            client.hdel("plaudit:request:r1", "answer", "again", "end", "order")
            client.hset("plaudit:request:r1", mapping={"state": "running", "body": b"{}", **fields})

    forget()
    assert (await asyncio.wait_for(owner.wait("r1", "tenant"), 5)).answer == {"runs": 2}
    forget()  # another process leaves it to the owner, which lives, until its deadline is long past
    await owner.heartbeat()
    assert (await other.status("r1", "tenant", "0-0", 0.3)).state == "running"
    forget(deadline=now_ms() - 11_000)
    assert (await asyncio.wait_for(other.wait("r1", "tenant"), 5)).answer == {"runs": 3}


async def test_a_dead_owners_request_is_taken_up_by_whoever_asks(make_requests: MakeRequests) -> None:
    gate = asyncio.Event()

    async def hang(*_: Any) -> dict[str, Any]:
        await gate.wait()
        return {}

    async def work(route: str, body: bytes, context: RequestContext) -> dict[str, Any]:
        context.report(0, Item(7))
        return {"route": route, "body": body.decode()}

    dead, heir = make_requests("a", hang), make_requests("b", work)
    await dead.start("r1", "/score", b"{}", "tenant", now_ms() + 10_000, 1)
    await dead.close()

    with pytest.raises(NotFound):
        await heir.status("r1", "somebody else", "0-0", 0.0)
    entry = await asyncio.wait_for(heir.wait("r1", "tenant"), 5)
    assert entry.answer == {"route": "/score", "body": "{}"}
    status = await heir.status("r1", "tenant", "0-0", 0.0)
    assert [(one.index, one.result) for one in status.items] == [(0, {"value": 7})]
    with pytest.raises(Conflict):
        await heir.start("r1", "/score", b"{ }", "tenant", now_ms() + 10_000, 1)


async def test_whoever_hears_the_end_has_heard_every_item(make_requests: MakeRequests) -> None:
    async def work(route: str, body: bytes, context: RequestContext) -> dict[str, Any]:
        for at in range(40):
            context.report(at, Item(at))
            await asyncio.sleep(0.001)
        return {}

    requests = make_requests("api", work)
    for round_ in range(5):
        await requests.start(f"r{round_}", "/score", b"{}", "", now_ms() + 10_000, 40)
        heard = [one.index async for status in requests.events(f"r{round_}", "", "0-0") for one in status.items]
        assert sorted(heard) == list(range(40))


async def test_cancel_and_done_are_one_step(make_requests: MakeRequests) -> None:
    gate = asyncio.Event()

    async def work(*_: Any) -> dict[str, Any]:
        await gate.wait()
        return {"status": "complete"}

    owner, other = make_requests("a", work), make_requests("b", work)
    for at in range(40):
        gate.clear()
        name = f"{at:032x}"
        await owner.start(name, "/score", b"{}", "", now_ms() + 10_000, 1)
        cancelling = asyncio.create_task(other.cancel(name, ""))
        await asyncio.sleep(0.0002 * (at % 10))
        gate.set()
        told = await cancelling
        ended = await asyncio.wait_for(owner.wait(name, ""), 5)
        await asyncio.sleep(0.01)
        assert (await other.read(name, "")).state == ended.state == told.state
        assert (ended.answer is not None) == (ended.state == "done")
        events = await owner.queue.client.xrange(f"plaudit:request:{name}:events")
        assert [fields for _, fields in events if b"end" in fields] == [{b"end": told.state.encode()}]
    await owner.close()
