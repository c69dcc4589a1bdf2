"""Long-polls and event streams share one reader: they cost Redis next to nothing and shut nobody out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from plaudit.errors import NotFound
from service.api.stores import event_reader
from service.api.stores.durable_requests import START, DurableRequests
from service.queue.protocol import now_ms
from support.broker import Broker
from support.stack import Stack, wait_for

MakeRequests = Callable[..., DurableRequests]
NUM_POLLERS = 600


async def hold(requests: DurableRequests, num_requests: int) -> None:
    """Start requests that run until they are cancelled; their owner lives for a minute."""
    for at in range(num_requests):
        await requests.start(f"r{at}", "/score", b"{}", "", now_ms() + 60_000, 1)
    await requests.queue.client.set(f"plaudit:api:{requests.owner}", "1", px=60_000)


async def never(*_: Any) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


def num_commands(client: redis.Redis) -> int:
    info: Any = client.info("stats")
    return int(info["total_commands_processed"])


async def test_pollers_cost_redis_as_much_as_one(broker: Broker, make_requests: MakeRequests) -> None:
    owner, other = make_requests("owner", never), make_requests("other", never)
    await hold(owner, NUM_POLLERS)
    polls = [
        asyncio.create_task(requests.status(f"r{at}", "", START, 60.0))
        for at in range(NUM_POLLERS)
        for requests in (owner, other)
    ]
    await until(lambda: len(owner.reader) == len(other.reader) == NUM_POLLERS)
    with broker.client() as client:
        await asyncio.sleep(2 * event_reader.BLOCK_S)  # the last of them joins the read
        before, began = num_commands(client), time.monotonic()
        await asyncio.sleep(2.0)
        per_second = (num_commands(client) - before) / (time.monotonic() - began)
        assert per_second < 30, per_second
        for at in range(NUM_POLLERS):
            client.hset(f"plaudit:request:r{at}", "state", "cancelled")
            client.xadd(f"plaudit:request:r{at}:events", {"end": "cancelled"})
    statuses = await asyncio.wait_for(asyncio.gather(*polls), 30)
    assert {status.state for status in statuses} == {"cancelled"}
    await owner.close()


async def test_who_begins_to_wait_during_a_read_is_heard_at_once(
    make_requests: MakeRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_reader, "BLOCK_S", 8.0)
    requests = make_requests("api", never)
    await hold(requests, 6)
    first = asyncio.create_task(requests.status("r0", "", START, 60.0))
    await until(lambda: len(requests.reader) == 1)
    began = time.monotonic()
    for at in range(1, 6):
        poll = asyncio.create_task(requests.status(f"r{at}", "", START, 60.0))
        await until(lambda: len(requests.reader) == 2)
        await requests.queue.client.xadd(f"plaudit:request:r{at}:events", {"end": "done"})
        await poll
    assert time.monotonic() - began < 8.0
    first.cancel()
    await requests.close()


async def test_a_request_that_redis_lost_ends_its_poll(broker: Broker, make_requests: MakeRequests) -> None:
    owner, other = make_requests("owner", never), make_requests("other", never)
    await hold(owner, 1)
    poll = asyncio.create_task(other.status("r0", "", START, 60.0))
    await until(lambda: len(other.reader) == 1)
    with broker.client() as client:
        client.flushall()
    with pytest.raises(NotFound):
        await asyncio.wait_for(poll, 10)
    await owner.close()


async def test_an_outage_of_redis_does_not_end_the_reader(broker: Broker, make_requests: MakeRequests) -> None:
    requests = make_requests("api", never)
    await hold(requests, 1)
    before = asyncio.create_task(requests.status("r0", "", START, 60.0))
    await until(lambda: len(requests.reader) == 1)
    broker.kill()
    await asyncio.wait([before], timeout=10)
    assert before.done()  # told that the queue does not answer
    broker.start()
    await hold(requests, 1)
    after = asyncio.create_task(requests.status("r0", "", START, 60.0))
    await until(lambda: len(requests.reader) == 1)
    await requests.queue.client.xadd("plaudit:request:r0:events", {"end": "done"})
    await asyncio.wait_for(after, 10)
    assert before.exception() is not None
    await requests.close()


def program(text: str, sleep_s: float = 0.0) -> dict[str, Any]:
    source = f"import time\ntime.sleep({sleep_s})\ndef f():\n    return 1\n# {text}\n"
    suite = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}
    return {"items": [{"language": "python", "programs": [source], "tests": suite}]}


async def poll_once(port: int, path: str) -> dict[str, Any]:
    """A GET on a connection of its own; the body of a 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: plaudit\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        answer: dict[str, Any] = json.loads(body)
        return answer
    finally:
        writer.close()


@pytest.mark.extended
async def test_600_pollers_shut_nobody_out(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(scorers=0, executors=2)
    async with stack.async_client() as http:
        with stack.client() as ready:
            wait_for(lambda: ready.get("/info").json()["workers"].get("execute") == 2, 60)
        accepted = await http.post("/execute", json=program("slow", 8.0), headers={"Prefer": "respond-async"})
        path = f"/jobs/{accepted.json()['job_id']}?wait_ms=60000"
        polls = [asyncio.create_task(poll_once(stack.port, path)) for _ in range(NUM_POLLERS)]
        for at in range(8):
            answer = await asyncio.wait_for(http.post("/execute", json=program(str(at))), 20)
            assert answer.status_code == 200, answer.text
            assert answer.json()["results"][0]["programs"][0]["verdict"] == "passed"
        assert not any(poll.done() and poll.exception() for poll in polls)
        answers = await asyncio.wait_for(asyncio.gather(*polls), 60)
        assert {answer["state"] for answer in answers} <= {"running", "done"}
        assert all(answer["items"] or answer["state"] == "done" for answer in answers)
