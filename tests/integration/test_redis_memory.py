"""Every family of keys has a budget of bytes: caches shorten, answers and suites are refused, work in hand goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio

from plaudit.errors import Overloaded
from service.api.dispatch.request_context import RequestContext
from service.api.stores.durable_requests import KEEP_BRIEF_MS, DurableRequests
from service.jobs import Job, Scored, ScoreTask, content_hash, encode
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer
from service.queue.memory import CACHES, FAMILIES, MemoryMonitor, budgets_of
from service.queue.producer import KEEP_SCORE_MS, Bound, Queue
from service.queue.protocol import KEEP_REPLY_MS, now_ms
from service.settings import Settings
from support.broker import Broker
from support.stack import READY_S, Stack, wait_for

MakeStack = Callable[..., Stack]
MakeRequests = Callable[..., DurableRequests]
QUEUE = "score:default"
HOUR_MS = 3_600_000


class Item:
    """A finished item, as far as durable requests look at it."""

    def __init__(self, index: int) -> None:
        self.index = index

    def model_dump(self, mode: str) -> dict[str, int]:
        return {"value": self.index}


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[Queue]:
    client: redis.asyncio.Redis = connect_async(broker.url, max_connections=32)
    yield Queue(client, "plaudit", "api")
    await client.aclose()


async def monitor(queue: Queue, **settings: Any) -> MemoryMonitor:
    memory = MemoryMonitor(queue, Settings(**settings))
    await memory.refresh()
    return memory


async def test_the_counted_bytes_are_about_those_that_redis_uses(
    broker: Broker, queue: Queue, make_requests: MakeRequests
) -> None:
    memory = await monitor(queue)
    queue.remember({f"plaudit:score:{at:064}": bytes(30) for at in range(500)}, 3600)
    await queue.put_suites({f"{at:064}": bytes(2000) for at in range(100)}, 3600)
    requests = make_requests("api", answering(16))
    for at in range(50):
        await requests.start(f"{at:032}", "/rank", bytes(8000), "", now_ms() + 60_000, 16)
        await requests.wait(f"{at:032}", "")
    with broker.client() as client:
        wait_for(lambda: client.exists(f"plaudit:score:{499:064}"), what="the scores")
        await memory.refresh()
        for family, pattern in (("scores", "score:*"), ("suites", "suite:*"), ("answers", "request:????????*[0-9]")):
            used = sum(int(client.memory_usage(key)) for key in client.scan_iter(f"plaudit:{pattern}", count=1000))
            assert used / 2 <= memory.use.families[family] <= 2 * used, family


async def test_bytes_are_no_longer_counted_once_their_keys_expire(queue: Queue) -> None:
    memory = await monitor(queue)
    await queue.put_suites({"a": bytes(5000)}, 3600)
    await queue.put_suites({"b": bytes(3000)}, 1)
    await memory.refresh()
    assert memory.use.families["suites"] > 8000
    async with asyncio.timeout(25):  # a bucket of time is ten seconds
        while memory.use.families["suites"] > 6000:
            await asyncio.sleep(0.2)
            await memory.refresh()
    assert 5000 < memory.use.families["suites"] < 6000
    assert not await queue.client.hlen("plaudit:bytes:suites") > 3  # sum, next, and one bucket


async def test_results_are_cached_for_less_long_the_fuller_their_family(broker: Broker, queue: Queue) -> None:
    budget = 40_000
    memory = await monitor(queue, max_result_bytes=budget)
    done = Scored("r", [1.0], [1], [False], [None], [None])
    with connect(broker.url) as client:
        worker = Consumer(client, "plaudit", "w", [QUEUE], lease_s=60, max_deliveries=3)
        worker.ensure_groups()
        kept: list[int] = []
        for at in range(200):
            task = encode(ScoreTask("default", "r", f"prompt {at}", ["c"]))
            job = Job(content_hash(task), "score", QUEUE, "normal", task, 1.0, now_ms() + 60_000)
            await queue.submit({f"t{at}": job}, Bound(1000, 1e9))
            assert worker.finish(worker.take(1)[0], done, cache_ms=HOUR_MS)
            kept.append(int(client.pttl(f"plaudit:cache:{job.id}")))  # type: ignore[arg-type]
    assert kept[0] > 0.99 * HOUR_MS
    assert all(later <= earlier + 500 for earlier, later in itertools.pairwise(kept))  # ms on the way here
    assert KEEP_REPLY_MS - 1000 <= min(left for left in kept if left > 0) <= KEEP_REPLY_MS
    assert kept[-1] == -2  # full: not cached, but answered
    await memory.refresh()
    replies_kept_briefly = kept.count(-2) * 600
    assert memory.use.families["results"] <= budget + replies_kept_briefly
    last = [key async for key in queue.client.scan_iter("plaudit:last:*")]
    assert max([await queue.client.pttl(key) for key in last]) <= 10_000


async def test_scores_are_remembered_for_less_long_and_then_not_at_all(broker: Broker, queue: Queue) -> None:
    budget = 60_000
    memory = await monitor(queue, max_score_bytes=budget)
    kept = []
    with broker.client() as client:
        for at in range(40):
            queue.remember({f"plaudit:score:{at}-{number}": bytes(30) for number in range(10)}, 3600)
            assert queue._storing is not None
            await queue._storing
            kept.append(int(client.pttl(f"plaudit:score:{at}-0")))  # type: ignore[arg-type]
    assert kept[0] > 3_590_000
    assert KEEP_SCORE_MS - 1000 <= min(left for left in kept if left > 0) <= KEEP_SCORE_MS
    assert kept[-1] == -2
    await memory.refresh()
    assert memory.use.families["scores"] <= budget + 3000  # one script's worth


async def test_suites_over_their_budget_are_refused_and_say_when(queue: Queue) -> None:
    await monitor(queue, max_testset_bytes=10_000)
    await queue.put_suites({"a": bytes(9000)}, 20)
    with pytest.raises(Overloaded, match="max_testset_bytes") as refusal:
        await queue.put_suites({"b": bytes(9000)}, 20)
    assert refusal.value.retry_after_s is not None
    assert 1 <= refusal.value.retry_after_s <= 30
    await queue.put_suites({"a": bytes(9000)}, 40)  # what is there may stay
    task = encode(ScoreTask("default", "r", "p", ["c"]))
    job = Job(content_hash(task), "score", QUEUE, "normal", task, 1.0, now_ms() + 60_000, ("c", bytes(9000)))
    with pytest.raises(Overloaded, match="max_testset_bytes"):
        await queue.submit({"t": job}, Bound(1000, 1e9))
    assert (await queue.load(QUEUE)).depth == 0


# --- durable requests ------------------------------------------------------------------------------------------------


def answering(num_items: int, gate: asyncio.Event | None = None) -> Any:
    async def perform(route: str, body: bytes, context: RequestContext) -> dict[str, Any]:
        if gate is not None:
            await gate.wait()
        for index in reversed(range(num_items)):
            context.report(index, Item(index))
            await asyncio.sleep(0.002)
        return {"results": [{"value": index} for index in range(num_items)]}

    return perform


async def test_the_body_goes_with_the_end_and_items_come_from_the_answer(
    queue: Queue, make_requests: MakeRequests
) -> None:
    requests = make_requests("api", answering(8), 60)
    await requests.start("r", "/rank", bytes(5000), "", now_ms() + 10_000, 8)
    assert await queue.client.hstrlen("plaudit:request:r", "body") == 5000
    entry = await asyncio.wait_for(requests.wait("r", ""), 5)
    assert entry.answer == {"results": [{"value": index} for index in range(8)]}
    assert await queue.client.hexists("plaudit:request:r", "body") is False
    assert await queue.client.xlen("plaudit:request:r:events") == 1  # the end
    await queue.client.delete("plaudit:request:r:events")
    status = await requests.status("r", "", "0-0", 0.0)
    assert sorted((item.index, item.result["value"]) for item in status.items) == [(at, at) for at in range(8)]
    middle = entry.order.split()[4].split(":")[0]
    assert (await requests.status("r", "", middle, 0.0)).items == status.items[5:]
    assert (await requests.status("r", "", status.cursor, 0.0)).items == []


async def test_an_answer_of_an_older_version_is_read(queue: Queue, make_requests: MakeRequests) -> None:
    fields = {
        "hash": "x",
        "route": "/rank",
        "body": "{}",
        "created": 1,
        "state": "done",
        "tenant": "",
        "deadline": now_ms(),
        "items": 1,
        "owner": "old",
        "answer": json.dumps({"results": [{"value": 5}]}),
        "again": "0",
    }
    await queue.client.hset("plaudit:request:r", mapping=fields)
    await queue.client.xadd("plaudit:request:r:events", {"item": json.dumps({"index": 0, "result": {"value": 5}})})
    await queue.client.xadd("plaudit:request:r:events", {"end": "done"})
    requests = make_requests("api", answering(1), 60)
    assert (await requests.wait("r", "")).answer == {"results": [{"value": 5}]}
    status = await requests.status("r", "", "0-0", 0.0)
    assert [(item.index, item.result) for item in status.items] == [(0, {"value": 5})]


async def test_a_request_over_the_budget_is_refused_and_running_ones_end(
    queue: Queue, make_requests: MakeRequests
) -> None:
    memory = await monitor(queue, max_answer_bytes=30_000)
    gate = asyncio.Event()
    requests = make_requests("api", answering(2, gate))
    for name in ("a", "b"):
        await requests.start(name, "/rank", bytes(12_000), "", now_ms() + 10_000, 2, brief=True)
    with pytest.raises(Overloaded, match="max_answer_bytes") as refusal:
        await requests.start("c", "/rank", bytes(12_000), "", now_ms() + 10_000, 2, brief=True)
    assert refusal.value.retry_after_s is not None
    assert not await queue.client.exists("plaudit:request:c")
    await requests.start("a", "/rank", bytes(12_000), "", now_ms() + 10_000, 2, brief=True)  # joins
    gate.set()
    for name in ("a", "b"):
        assert (await asyncio.wait_for(requests.wait(name, ""), 5)).state == "done"
    await memory.refresh()
    assert memory.use.families["answers"] < 4000  # without the bodies and the events
    await requests.start("c", "/rank", bytes(12_000), "", now_ms() + 10_000, 2, brief=True)
    await requests.close()


async def test_answers_that_somebody_waits_for_shorten_first(queue: Queue, make_requests: MakeRequests) -> None:
    memory = await monitor(queue, max_answer_bytes=40_000)
    requests = make_requests("api", answering(1))
    kept = []
    for at in range(20):
        await requests.start(f"r{at}", "/rank", b"{}", "", now_ms(), 1, brief=True)
        await requests.wait(f"r{at}", "")
        kept.append(await queue.client.pttl(f"plaudit:request:r{at}"))
    assert kept[0] > 0.9 * HOUR_MS
    assert KEEP_BRIEF_MS - 1000 <= kept[-1] <= KEEP_BRIEF_MS
    await requests.start("promised", "/rank", b"{}", "", now_ms(), 1)
    await requests.wait("promised", "")
    assert await queue.client.pttl("plaudit:request:promised") > 0.99 * HOUR_MS
    await requests.start("r19", "/rank", b"{}", "", now_ms(), 1)  # now it is promised to somebody, too
    assert await queue.client.pttl("plaudit:request:r19") > 0.99 * HOUR_MS
    await memory.refresh()
    assert memory.use.families["answers"] < 40_000


def test_caches_shrink_before_answers_as_redis_fills() -> None:
    settings = Settings()
    roomy, tight, full = (budgets_of(settings, used, 1000 << 20) for used in (100 << 20, 920 << 20, 970 << 20))
    assert all(roomy[family] > 0 for family in FAMILIES)
    assert {family for family in FAMILIES if tight[family] == 0} == CACHES
    assert all(tight[family] == roomy[family] for family in FAMILIES if family not in CACHES)
    assert set(full.values()) == {0}
    assert sum(roomy.values()) < 0.85 * (1000 << 20)  # all families full: nothing shrinks


def program(number: int) -> dict[str, Any]:
    tests = {"kind": "stdio", "cases": [{"stdin": "", "stdout": f"{number}\n"}]}
    return {"items": [{"language": "python", "programs": [f"print({number})"], "tests": tests}]}


def test_a_full_redis_is_429_for_durable_requests_and_ends_no_process(make_stack: MakeStack) -> None:
    stack = make_stack(scorers=0)
    assert stack.api is not None
    with stack.broker.client() as broker, stack.client() as http:
        wait_for(lambda: http.get("/info").json()["workers"]["execute"] == 1, READY_S, "the executor")
        assert http.post("/execute", json=program(0)).status_code == 200
        broker.setrange("ballast", 20_000_000, b"x")  # so that a twentieth of it is more than buffers and scripts need
        used = int(broker.info("memory")["used_memory"])  # type: ignore[index]
        broker.config_set("maxmemory", int(used / 0.95))  # caches have no budget, answers half of theirs
        wait_for(lambda: stack.metric('plaudit_redis_family_max_bytes{family="scores"}') == 0, what="the budgets")
        assert http.post("/execute", json=program(1)).status_code == 200
        broker.config_set("maxmemory", used // 2)  # what is there is already too much
        wait_for(lambda: stack.metric('plaudit_redis_family_max_bytes{family="answers"}') == 0, what="the budgets")
        for number in range(3):
            refused = http.post("/execute", json=program(2), headers={"Idempotency-Key": f"k{number}"})
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded"), refused.text
            assert int(refused.headers["Retry-After"]) >= 1
        assert http.get("/health").status_code == 200
        assert stack.api.popen.poll() is None
        assert not [line for line in stack.api.logged() if "failed; it goes on" in str(line.get("message"))]
        broker.config_set("maxmemory", 0)
        wait_for(lambda: stack.metric('plaudit_redis_family_max_bytes{family="answers"}') > 0, what="the budgets")
        answered = http.post("/execute", json=program(3), headers={"Idempotency-Key": "later"})
        assert answered.status_code == 200
        assert stack.metric("plaudit_redis_used_bytes") > 0
        wait_for(lambda: stack.metric('plaudit_redis_family_bytes{family="answers"}') > 0, what="the count")
