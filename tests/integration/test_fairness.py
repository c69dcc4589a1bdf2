"""Tenants take turns: whatever they send, whatever they take back, and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from service.jobs import Job, Scored, ScoreTask, content_hash, encode
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer, Lease
from service.queue.producer import Bound, Queue
from service.queue.protocol import now_ms
from support.broker import Broker

QUEUE = "score:default"
WIDE = Bound(100_000, 1e12)
DONE = Scored("r", [1.0], [1], [False], [None], [None])
LEASE_S = 0.2


class Line:
    """A queue with one worker, and what each tenant was given, in order."""

    def __init__(self, queue: Queue, worker: Consumer) -> None:
        self.queue, self.worker = queue, worker
        self.jobs: dict[str, Job] = {}
        self.served: list[Job] = []
        self.num = 0

    async def send(self, tenant: str, *costs: float) -> list[Job]:
        made = []
        for cost in costs:
            self.num += 1
            task = encode(ScoreTask("default", "r", f"{tenant} {self.num}", ["c"]))
            made.append(Job(content_hash(task), "score", QUEUE, "normal", task, cost, now_ms() + 60_000, tenant=tenant))
        self.jobs |= {job.id: job for job in made}
        await self.queue.submit({job.id: job for job in made}, WIDE)
        return made

    async def take_back(self, jobs: list[Job]) -> None:
        assert await self.queue.leave(QUEUE, {job.id: job.id for job in jobs}) == len(jobs)

    def serve(self, limit: int) -> list[Lease]:
        leases = self.worker.take(limit, block_s=0.0)
        self.served += [self.jobs[lease.id] for lease in leases]
        for lease in leases:
            assert self.worker.finish(lease, DONE)
        return leases

    def work(self) -> dict[str, float]:
        done: dict[str, float] = defaultdict(float)
        for job in self.served:
            done[job.tenant] += job.cost
        return done


@pytest.fixture
async def line(broker: Broker) -> AsyncIterator[Line]:
    client, other = connect_async(broker.url), connect(broker.url)
    worker = Consumer(other, "plaudit", "w", [QUEUE], lease_s=LEASE_S, max_deliveries=3)
    worker.ensure_groups()
    yield Line(Queue(client, "plaudit", "api"), worker)
    await client.aclose()
    other.close()


@pytest.mark.parametrize("seed", range(5))
async def test_while_two_have_work_waiting_neither_gets_more_than_the_largest_jobs_ahead(line: Line, seed: int) -> None:
    """Three tenants send at random, far more than is served, and one of them takes jobs back before their turn."""
    draw = random.Random(seed)
    most = {"a": 1.0, "b": 10.0, "c": 100.0}
    waiting: dict[str, list[Job]] = {tenant: await line.send(tenant, *[most[tenant]] * 4) for tenant in most}
    for _ in range(40):
        for tenant, largest in most.items():
            while sum(job.cost for job in waiting[tenant]) < 1500:
                waiting[tenant] += await line.send(tenant, *[draw.uniform(0.5, 1.0) * largest for _ in range(40)])
        if draw.random() < 0.3:
            gone = draw.sample(waiting["b"], draw.randint(1, 5))
            await line.take_back(gone)
            waiting["b"] = [job for job in waiting["b"] if job not in gone]
        line.serve(draw.randint(1, 12))
        for tenant in most:
            waiting[tenant] = [job for job in waiting[tenant] if job not in line.served]
            assert waiting[tenant], "a tenant ran out of work: the bound says nothing"
        work = line.work()
        for one, other in (("a", "b"), ("b", "c"), ("a", "c")):
            assert abs(work[one] - work[other]) <= most[one] + most[other] + 1e-6


async def test_a_tenants_own_jobs_keep_their_order(line: Line) -> None:
    draw = random.Random(1)
    for _ in range(30):
        await line.send(draw.choice("abc"), *(draw.uniform(1, 50) for _ in range(draw.randint(1, 4))))
    while line.serve(draw.randint(1, 5)):
        pass

    assert len(line.served) == len(line.jobs)
    for tenant in "abc":
        sent = [job.id for job in line.jobs.values() if job.tenant == tenant]
        assert [job.id for job in line.served if job.tenant == tenant] == sent


async def test_one_request_of_a_newcomer_does_not_wait_for_a_crowd(line: Line) -> None:
    await line.send("crowd", *[5.0] * 500)
    line.serve(100)
    (mine,) = await line.send("newcomer", 5.0)
    line.serve(2)

    assert mine in line.served[-2:]


async def test_who_was_away_has_saved_nothing_up(line: Line) -> None:
    await line.send("busy", *[1.0] * 300)
    line.serve(200)
    await line.send("back", *[1.0] * 50)
    line.serve(40)

    assert sum(job.tenant == "back" for job in line.served[-40:]) in (20, 21)


async def test_what_was_taken_back_is_not_held_against_anybody(line: Line) -> None:
    await line.send("other", *[1.0] * 50)
    regretted = await line.send("mine", *[1.0] * 200)
    await line.take_back(regretted)
    await line.send("mine", *[1.0] * 50)
    line.serve(40)

    assert sum(job.tenant == "mine" for job in line.served) in (20, 21)


async def test_a_dead_workers_jobs_come_back_to_whom_they_were_given(line: Line, broker: Broker) -> None:
    """The seats that it held are its jobs', not the next in line's."""
    await line.send("a", *[1.0] * 6)
    await line.send("b", *[1.0] * 6)
    client = connect(broker.url)
    dead = Consumer(client, "plaudit", "dead", [QUEUE], lease_s=LEASE_S, max_deliveries=3)
    held = {lease.id for lease in dead.take(5, block_s=0.0)}
    client.close()
    assert len(held) == 5
    await asyncio.sleep(LEASE_S * 1.5)
    while len(line.served) < 12:
        line.serve(5)

    assert {job.id for job in line.served[:5]} == held
    assert {job.id for job in line.served} == set(line.jobs)
    assert not {key for key in line.worker.client.keys("*") if b"seats" in key or b"waiting" in key or b"turns" in key}
