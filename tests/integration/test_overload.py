"""2,000 requests at once against small bounds: everybody gets a word at once or a right answer, and nothing swells."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.asks import Ask, Asks, crowd
from support.stack import Stack, wait_for

MakeStack = Callable[..., Stack]

CROWD = 2000
MAX_QUEUED = 64
MAX_GROWTH_MB = {"api": 160.0, "broker": 32.0}  # 2,000 open requests are some ten MB; a queue of them all is more


def slowly(ask: Ask, seconds: float = 0.2) -> Ask:
    """The same program with a nap first: a queue that is long enough to be measured, whatever the machine."""
    (item,) = ask.body["items"]
    item["programs"] = [f"import time\ntime.sleep({seconds / 2})\n{program}" for program in item["programs"]]
    return ask


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Peaks:
    """The most that each process has had since the beginning, looked at while others work."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.first = {name: rss_mb(pid) for name, pid in pids.items()}
        self.most = dict(self.first)

    async def watch(self) -> None:
        while True:
            for name, pid in self.pids.items():
                self.most[name] = max(self.most[name], rss_mb(pid))
            await asyncio.sleep(0.1)

    @property
    def growth(self) -> dict[str, float]:
        return {name: self.most[name] - self.first[name] for name in self.pids}


async def post(port: int, ask: Ask) -> httpx.Response:
    """A request on a connection of its own; a client library for each of 2,000 would be most of the load."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(ask.body).encode()
    writer.write(
        f"POST {ask.path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-Deadline-Ms: 60000\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    return httpx.Response(int(status.split()[1]), headers=headers, content=content)


@pytest.mark.extended
async def test_two_thousand_at_once_are_answered_or_told_when_to_come_back(make_stack: MakeStack, asks: Asks) -> None:
    stack = make_stack(max_queued_execute=str(MAX_QUEUED), max_queued_score=str(MAX_QUEUED))
    assert stack.api is not None
    assert stack.broker.process is not None
    warm = [asks.execute(number) for number in range(10_000, 10_012)]
    async with stack.async_client() as client:
        await crowd(client, warm)  # so that a drain rate is known

    sent = [asks.execute(number) if number % 4 else asks.score(number) for number in range(CROWD)]
    peaks = Peaks({"api": stack.api.pid, "broker": stack.broker.process.pid})
    refusals: list[httpx.Response] = []
    outcomes: Counter[str] = Counter()

    async def one(ask: Ask) -> None:
        response = await post(stack.port, ask)
        outcome = ask.judge(response)
        if response.status_code == 200:
            assert outcome == "right", response.text  # what was accepted was done
        else:
            refusals.append(response)
        outcomes[f"{response.status_code} {outcome}"] += 1

    watching = asyncio.create_task(peaks.watch())
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        for ask in sent:
            group.create_task(one(ask))
    watching.cancel()

    assert sum(outcomes.values()) == CROWD
    assert outcomes["200 right"] >= MAX_QUEUED, outcomes
    assert len(refusals) > CROWD / 20, outcomes  # the faster the service, the fewer
    for refusal in refusals:
        after = refusal.headers["Retry-After"]
        assert after.isdigit(), after
        assert 1 <= int(after) <= 60
        assert int(after) == math.ceil(refusal.json()["retry_after_ms"] / 1000)
    for name, most in MAX_GROWTH_MB.items():
        assert peaks.growth[name] < most, peaks.growth

    def idle() -> bool:
        with stack.client() as one:
            return all(state["depth"] == 0 for state in one.get("/info").json()["queues"].values())

    await asyncio.to_thread(wait_for, idle, 20.0, "the queues to be empty")
    async with stack.async_client() as client:
        assert (await client.get("/ready")).status_code == 200
        after_all = [asks.score(20_000), asks.execute(20_000), asks.rank(20_000)]
        await crowd(client, after_all)
    assert [ask.outcomes for ask in after_all] == [["right"]] * 3


@pytest.mark.extended
async def test_retry_after_is_what_the_queue_needs_at_its_rate(make_stack: MakeStack, asks: Asks) -> None:
    """A request as large as the whole queue is told to wait about as long as so much takes to drain."""
    stack = make_stack(scorers=1, executors=1, max_queued_execute="24", max_queued_score="1000")
    big = slowly(asks.execute(0))
    big.body["items"][0]["programs"] = [
        f"{program}# {at}\n" for at, program in enumerate(big.body["items"][0]["programs"] * 24)
    ]
    async with stack.async_client() as client:
        working = asyncio.create_task(client.post("/execute", json=big.body))
        first: tuple[float, float] | None = None
        refused: httpx.Response | None = None
        while not working.done():
            state = (await client.get("/info")).json()["queues"]["execute"]
            if state["drained_cost_per_s"] > 0 and state["depth"] >= 4 and refused is None:
                first = (time.monotonic(), state["cost"])
                (item,) = big.body["items"]
                more = {"items": [{**item, "programs": [f"{program}# again\n" for program in item["programs"]]}]}
                refused = await client.post("/execute", json=more)
            await asyncio.sleep(0.05)
        took = time.monotonic() - first[0] if first else 0.0
        assert (await working).status_code == 200
    assert first is not None
    assert refused is not None
    assert refused.status_code == 429, refused.text
    assert refused.json()["code"] == "overloaded"
    # 24 programs were refused; at the rate at which the rest of the first 24 went, they would take so long:
    cost_of_24 = 24 * 2 * 5.0
    needed = took * cost_of_24 / first[1]
    told = int(refused.headers["Retry-After"])
    assert 1 <= told <= 60
    assert needed / 5 <= told <= 5 * needed + 1, (needed, told)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(make_stack: MakeStack, asks: Asks) -> None:
    stack = make_stack()
    sent = [slowly(asks.execute(number)) for number in range(24)]
    async with stack.async_client() as client:
        working = asyncio.create_task(crowd(client, sent))
        async with asyncio.timeout(30):
            while True:
                state = (await client.get("/info")).json()["queues"]["execute"]
                rate = state["drained_cost_per_s"]
                if rate > 0 and state["cost"] / rate > 2:
                    break
                assert not working.done(), "the queue was never two seconds long"
                await asyncio.sleep(0.02)
        hurried = asks.execute(1000)
        began = time.monotonic()
        refused = await client.post("/execute", json=hurried.body, headers={"X-Deadline-Ms": "100"})
        assert refused.status_code == 503, refused.text
        assert refused.json()["code"] == "deadline_unreachable"
        assert refused.json()["retryable"] is True
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert time.monotonic() - began < 60  # "at once" is not measured on a busy machine, but it did not queue
        patient = asks.execute(1001)
        await crowd(client, [patient])
        await working
    assert patient.outcomes == ["right"]
    assert [ask.outcomes for ask in sent] == [["right"]] * len(sent)
