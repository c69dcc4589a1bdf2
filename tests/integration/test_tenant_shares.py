"""Admission is fair: a tenant may use an empty house, keeps its share of a full one, and is shut out by nobody."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plaudit.errors import Overloaded
from service.jobs import Job, Scored, ScoreTask, content_hash, encode
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer, Lease
from service.queue.producer import Bound, Queue
from service.queue.protocol import now_ms
from support.broker import Broker
from support.stack import Stack, wait_for

MakeStack = Callable[..., Stack]

QUEUE = "score:default"
WIDE = Bound(100_000, 1e12)
DONE = Scored("r", [1.0], [1], [False], [None], [None])


def job(name: str, tenant: str, *, cost: float = 1.0, left_ms: int = 60_000, lane: Any = "normal") -> Job:
    task = encode(ScoreTask("default", "r", name, ["c"]))
    return Job(content_hash(task), "score", QUEUE, lane, task, cost, now_ms() + left_ms, tenant=tenant)


class Tenants:
    """Tenants that send jobs to one queue with a bound."""

    def __init__(self, queue: Queue, bound: Bound) -> None:
        self.queue, self.bound = queue, bound
        self.sent: list[Job] = []

    async def send(self, tenant: str, num: int, cost: float = 1.0) -> None:
        jobs = [job(f"{tenant} {len(self.sent) + at}", tenant, cost=cost) for at in range(num)]
        await self.queue.submit({one.id: one for one in jobs}, self.bound)
        self.sent += jobs

    async def rejects(self, tenant: str, num: int, cost: float = 1.0) -> str:
        """What this tenant is told that may not send so much."""
        with pytest.raises(Overloaded) as told:
            await self.send(tenant, num, cost)
        return told.value.detail


@asynccontextmanager
async def queue_of(broker: Broker, channel: str = "api") -> AsyncIterator[Queue]:
    client = connect_async(broker.url, max_connections=8)
    yield Queue(client, "plaudit", channel)
    await client.aclose()


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[Queue]:
    async with queue_of(broker) as one:
        yield one


# --- who is admitted -------------------------------------------------------------------------------------------------


async def test_alone_in_the_house_a_tenant_may_use_all(queue: Queue) -> None:
    tenants = Tenants(queue, Bound(12, 1e9))
    await tenants.send("alice", 12)
    assert "at most 12" in await tenants.rejects("alice", 1)


async def test_a_full_house_admits_the_single_job_of_a_newcomer(queue: Queue) -> None:
    tenants = Tenants(queue, Bound(4, 1e9))
    await tenants.send("alice", 4)
    for number in range(20):  # however many newcomers there are
        await tenants.send(f"newcomer {number}", 1)
    await tenants.rejects("alice", 1)
    await tenants.rejects("newcomer 0", 1)


async def test_a_newcomer_has_its_share_beside_a_tenant_that_filled_the_bound(queue: Queue) -> None:
    tenants = Tenants(queue, Bound(12, 1e9))
    await tenants.send("alice", 12)
    assert "share is 6 jobs" in await tenants.rejects("bob", 7)
    await tenants.send("bob", 4)
    await tenants.send("bob", 2)
    assert "of them 6 jobs" in await tenants.rejects("bob", 1)
    await tenants.rejects("carol", 5)
    await tenants.send("carol", 4)
    await tenants.rejects("alice", 1)


async def test_the_share_of_the_cost_is_kept_as_that_of_the_jobs(queue: Queue) -> None:
    tenants = Tenants(queue, Bound(1000, 120.0))
    await tenants.send("alice", 6, cost=20.0)
    await tenants.rejects("bob", 7, cost=10.0)
    await tenants.send("bob", 6, cost=10.0)
    assert "share is 500 jobs of cost 60" in await tenants.rejects("bob", 1)


async def test_all_shares_together_stay_below_twice_the_bound(queue: Queue) -> None:
    tenants = Tenants(queue, Bound(64, 1e9))
    for number in range(1, 40):
        for num in range(64 // number, 1, -1):  # each takes as much as it is given
            try:
                await tenants.send(f"tenant {number}", num)
            except Overloaded:
                continue
            break
    assert 64 < len(tenants.sent) <= 128


async def test_who_has_left_takes_no_share(queue: Queue) -> None:
    tenants = Tenants(queue, Bound(12, 1e9))
    await tenants.send("alice", 6)
    await tenants.send("bob", 6)
    await tenants.rejects("alice", 1)
    bobs = [one.id for one in tenants.sent if one.tenant == "bob"]
    assert await queue.leave(QUEUE, {id_: id_ for id_ in bobs}) == 6
    await tenants.send("alice", 6)


# --- the accounting --------------------------------------------------------------------------------------------------


def counted(client: Any) -> tuple[dict[str, int], dict[str, float]]:
    """Live jobs and their cost by tenant, as the scripts have counted them."""
    fields = {name.decode(): value for name, value in client.hgetall(f"plaudit:tenants:{QUEUE}").items()}
    jobs = {name[5:]: int(value) for name, value in fields.items() if name.startswith("jobs:")}
    return jobs, {name[5:]: float(value) for name, value in fields.items() if name.startswith("cost:")}


def true_counts(client: Any) -> tuple[dict[str, int], dict[str, float]]:
    """The same, as the jobs say."""
    jobs: Counter[str] = Counter()
    cost: defaultdict[str, float] = defaultdict(float)
    for id_ in client.zrange(f"plaudit:live:{QUEUE}", 0, -1):
        tenant, own_cost = client.hmget(f"plaudit:job:{id_.decode()}", "tenant", "cost")
        jobs[tenant.decode()] += 1
        cost[tenant.decode()] += float(own_cost)
    return dict(jobs), dict(cost)


def seats(client: Any) -> set[tuple[str, str, str]]:
    """The entries of all lanes: lane, entry and job. Every entry of a stream is a seat, and the reverse."""
    found = set()
    for lane in ("high", "normal", "low"):
        held = client.hgetall(f"plaudit:seats:{QUEUE}:{lane}")
        assert {entry for entry, _ in client.xrange(f"plaudit:stream:{QUEUE}:{lane}")} == set(held)
        found |= {(f"{QUEUE}:{lane}", entry.decode(), id_.decode()) for entry, id_ in held.items()}
    return found


def live_seats(client: Any) -> set[tuple[str, str, str]]:
    """The same, as the jobs say."""
    ids = [id_.decode() for id_ in client.zrange(f"plaudit:live:{QUEUE}", 0, -1)]
    places = [(id_, *client.hmget(f"plaudit:job:{id_}", "line", "entry")) for id_ in ids]
    return {(line.decode(), entry.decode(), id_) for id_, line, entry in places}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("submit", "submit", "late", "take", "finish", "finish", "leave", "expire", "crash")),
        st.sampled_from(("alice", "bob", "", "carol:1")),
        st.integers(0, 2**16),
    ),
    max_size=40,
)


async def act(broker: Broker, actions: list[tuple[str, str, int]]) -> None:
    """Play the actions on an empty queue; after each the counts must be what the jobs say."""
    client, own = connect(broker.url), broker.client()
    client.flushall()
    worker = Consumer(client, "plaudit", "w", [QUEUE], lease_s=0.001, max_deliveries=2)
    worker.ensure_groups()
    waiting: dict[str, str] = {}  # token to job
    leases: list[Lease] = []
    async with queue_of(broker) as queue:
        for action, tenant, seed in actions:
            draw = random.Random(seed)
            if action in ("submit", "late"):
                left_ms = 60_000 if action == "submit" else -1000
                some = [
                    job(f"{draw.randrange(12)}", tenant, cost=draw.uniform(0.1, 1e6), left_ms=left_ms, lane=lane)
                    for lane in draw.choices(("high", "normal", "low"), k=draw.randint(1, 5))
                ]
                jobs = {f"{one.id} {draw.random()}": one for one in {one.id: one for one in some}.values()}
                waiting |= {token: one.id for token, one in jobs.items()}
                await queue.submit(jobs, WIDE)
            elif action == "take":
                leases += worker.take(draw.randint(1, 4), block_s=0.0)
            elif action == "finish" and leases:
                worker.finish(leases.pop(draw.randrange(len(leases))), DONE)
            elif action == "leave" and waiting:
                tokens = draw.sample(sorted(waiting), draw.randint(1, len(waiting)))
                await queue.leave(QUEUE, {token: waiting.pop(token) for token in tokens})
            elif action == "expire":
                await queue.expire(QUEUE, grace_ms=0)
            elif action == "crash":  # and another worker takes what it held
                await asyncio.sleep(0.003)
                worker = Consumer(client, "plaudit", f"w{seed}", [QUEUE], lease_s=0.001, max_deliveries=2)
            assert seats(own) == live_seats(own)
            jobs_counted, cost_counted = counted(own)
            true_jobs, true_cost = true_counts(own)
            assert jobs_counted == true_jobs
            assert cost_counted == pytest.approx(true_cost, abs=1e-3)
        assert (await queue.load(QUEUE)).cost_by_tenant == pytest.approx(true_counts(own)[1], abs=1e-3)
        await queue.leave(QUEUE, waiting)
        await queue.expire(QUEUE, grace_ms=-(10**9))
        assert counted(own) == ({}, {})
        assert seats(own) == set()
        assert not own.keys("plaudit:turns:*") + own.keys("plaudit:waiting:*")
    client.close()
    own.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_the_counts_of_each_tenant_are_what_the_jobs_say(broker: Broker, actions: list[tuple[str, str, int]]) -> None:
    asyncio.run(act(broker, actions))


async def test_counts_that_an_older_version_left_wrong_are_mended(queue: Queue, broker: Broker) -> None:
    """Older processes admit and end jobs without counting them."""
    tenants = Tenants(queue, Bound(12, 1e9))
    await tenants.send("alice", 3, cost=2.0)
    await tenants.send("bob", 1)
    with broker.client() as client:
        for name, count in (("jobs:alice", 7), ("jobs:gone", 3), ("cost:gone", 3)):
            client.hset(f"plaudit:tenants:{QUEUE}", name, str(count))
        assert (await queue.load(QUEUE)).cost_by_tenant == {"alice": 6.0, "bob": 1.0}
        client.delete(f"plaudit:tenants:{QUEUE}")
        assert (await queue.load(QUEUE)).cost_by_tenant == {"alice": 6.0, "bob": 1.0}
        assert counted(client) == true_counts(client)


# --- over HTTP -------------------------------------------------------------------------------------------------------

NUM_QUEUED = 100
SUITE = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}


def sleepers(name: str, num: int) -> dict[str, Any]:
    """A request of programs that take a second each."""
    programs = [f"import time\ntime.sleep(1)\ndef f():\n    return 1\n# {name} {at}\n" for at in range(num)]
    return {"items": [{"language": "python", "programs": programs, "tests": SUITE}]}


def as_tenant(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **headers}


def test_a_newcomer_is_answered_in_time_beside_any_backlog(broker: Broker) -> None:
    """One tenant fills the queue for more than a minute; another's program with a short deadline is done meanwhile."""
    options = {"api_key": "alice,bob", "max_queued_execute": str(NUM_QUEUED)}
    with Stack(broker, Path("none"), scorers=0, executors=1, **options) as stack, stack.client() as http:

        def state() -> dict[str, Any]:
            queue: dict[str, Any] = http.get("/info", headers=as_tenant("bob")).json()["queues"]["execute"]
            return queue

        wait_for(lambda: http.get("/info", headers=as_tenant("bob")).json()["workers"]["execute"], 60, "an executor")
        backlog = http.post(
            "/execute",
            json=sleepers("alice", NUM_QUEUED - 1),  # the probe may be waiting, too
            headers=as_tenant("alice", Prefer="respond-async"),
        )
        assert backlog.status_code == 202, backlog.text
        wait_for(lambda: state()["drained_cost_per_s"] > 0, 60, "a drain rate")
        deadline_s = min(30.0, state()["cost"] / state()["drained_cost_per_s"] / 2)

        began = time.monotonic()
        answer = http.post(
            "/execute",
            json=sleepers("bob", 1),
            headers=as_tenant("bob", **{"X-Deadline-Ms": f"{deadline_s * 1000:.0f}"}),
        )
        took_s = time.monotonic() - began
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["programs"][0]["verdict"] == "passed", answer.text
        assert took_s < deadline_s
        assert state()["depth"] > NUM_QUEUED / 4  # the backlog is still there

        hurried = http.post(
            "/execute", json=sleepers("more", 1), headers=as_tenant("alice", **{"X-Deadline-Ms": "2000"})
        )
        assert (hurried.status_code, hurried.json()["code"]) == (503, "deadline_unreachable"), hurried.text
        assert 1 <= int(hurried.headers["Retry-After"]) <= 60
        assert http.delete(backlog.headers["Location"], headers=as_tenant("alice")).status_code == 200
