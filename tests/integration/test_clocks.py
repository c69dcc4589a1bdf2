"""Clocks of hosts differ: an API or a worker whose clock is minutes off changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.broker import Broker
from support.hosts import wrong_clock
from support.stack import Stack, wait_for

OFF_S = 200.0
SUITE = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}


def run(url: str, name: str, seconds: float) -> str:
    """The verdict of a program that takes so long, with a deadline that is far off, but nearer than the clocks are."""
    program = f"import time\ntime.sleep({seconds})\ndef f():\n    return 1\n# {name}\n"
    body = {"items": [{"language": "python", "programs": [program], "tests": SUITE}]}
    answer = httpx.post(f"{url}/execute", json=body, headers={"X-Deadline-Ms": "60000"}, timeout=90, trust_env=False)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]["programs"][0]
    assert result["status"] == "ok", result
    return str(result["verdict"])


@contextmanager
def apis(broker: Broker, *clocks_s: float, executors: tuple[float, ...]) -> Iterator[list[str]]:
    """The URLs of an API whose clock is right and of others with these clocks, once these see all executors."""
    with Stack(broker, Path("none"), scorers=0, executors=0) as stack:
        for clock_s in executors:
            stack.start_executor(clock_s=clock_s)
        urls = [stack.url]
        for clock_s in clocks_s:
            stack.start_api(wait=False, clock_s=clock_s)
            urls.append(stack.url)
            with stack.client() as http:
                wait_for(
                    lambda: http.get("/info").json()["workers"]["execute"] == len(executors),
                    60,
                    "the executors to be seen",
                )
        for process, off_s in zip(stack.processes, (0.0, *executors, *clocks_s), strict=True):
            ahead = datetime.fromisoformat(process.logged()[0]["time"]) - datetime.now(UTC)
            assert abs(ahead.total_seconds() - off_s) < OFF_S / 2  # the clock is as wrong as it should be
        yield urls


@contextmanager
def shards(folder: Path, *clocks_s: float) -> Iterator[list[Broker]]:
    """A Redis per clock, each of which is so far off."""
    with ExitStack() as ends:
        yield [ends.enter_context(Broker(environ=wrong_clock(folder, off_s))) for off_s in clocks_s]


@pytest.mark.extended
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, to build what changes the clock of a Redis")
def test_shards_whose_clocks_are_off_work_together(tmp_path: Path) -> None:
    """Nothing is late or alive too long: jobs, workers' announcements, leases, durable requests."""
    with shards(tmp_path, OFF_S, -OFF_S) as brokers, Stack(brokers[0], Path("none"), scorers=0, executors=0) as stack:
        with brokers[0].client() as ahead, brokers[1].client() as behind:
            assert ahead.time()[0] - behind.time()[0] == pytest.approx(2 * OFF_S, abs=2)
        stack.close()
        stack.redis_urls = [broker.url for broker in brokers]
        stack.start_executor()
        stack.start_api(wait=False)
        with stack.client(headers={"X-Deadline-Ms": "20000"}) as http:
            wait_for(lambda: http.get("/info").json()["workers"]["execute"] == 1, 60, "the executor to be seen")
            wait_for(
                lambda: (
                    [(state["up"], state["executors"]) for state in http.get("/info").json()["shards"]]
                    == [(True, 1), (True, 1)]
                ),
                60,
                "the executor to be seen on both shards",
            )
            programs = [f"def f():\n    return 1\n# {at}" for at in range(4)]
            suites = [{**SUITE, "asserts": [f"assert f() == 1  # {at}"]} for at in range(8)]
            items = [{"language": "python", "programs": programs, "tests": suite} for suite in suites]
            answer = http.post("/execute", json={"items": items}).raise_for_status().json()
            told = [program["status"] for result in answer["results"] for program in result["programs"]]
            assert told == ["ok"] * 32
            with brokers[0].client() as ahead, brokers[1].client() as behind:
                assert all(list(one.scan_iter("plaudit:cache:*")) for one in (ahead, behind))  # both were used
            for number in range(4):  # on either shard; run again within their deadline, and taken over by none
                headers = {"Idempotency-Key": f"key {number}", "Prefer": "respond-async"}
                body = {"items": [{**items[number], "programs": [f"{programs[0]} later"]}]}
                accepted = http.post("/execute", json=body, headers=headers)
                assert accepted.status_code == 202, accepted.text
                status = http.get(accepted.json()["status_url"], params={"wait_ms": 15000}).json()
                while status["state"] == "running":
                    status = http.get(accepted.json()["status_url"], params={"wait_ms": 15000}).json()
                assert status["answer"]["results"][0]["programs"][0]["verdict"] == "passed", status
            queue = http.get("/info").json()["queues"]["execute"]
            assert queue["oldest_ms"] < 30_000


@pytest.mark.extended
def test_processes_whose_clocks_are_off_work_together(broker: Broker) -> None:
    """No job is late for anyone: neither to the worker that takes it nor to an API that sweeps."""
    with apis(broker, OFF_S, -OFF_S, executors=(OFF_S, -OFF_S)) as urls, ThreadPoolExecutor(8) as pool:
        jobs = [(url, f"{url} {at}", 2.5) for url in urls for at in range(2)]
        assert list(pool.map(lambda job: run(*job), jobs)) == ["passed"] * len(jobs)
        for url in urls:
            queue = httpx.get(f"{url}/info", trust_env=False).json()["queues"]["execute"]
            assert queue["oldest_ms"] < 30_000
