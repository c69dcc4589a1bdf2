"""Clocks of hosts differ: an API or a worker whose clock is minutes off changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from support.broker import Broker
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


def test_processes_whose_clocks_are_off_work_together(broker: Broker) -> None:
    """No job is late for anyone: neither to the worker that takes it nor to an API that sweeps."""
    with apis(broker, OFF_S, -OFF_S, executors=(OFF_S, -OFF_S)) as urls, ThreadPoolExecutor(8) as pool:
        jobs = [(url, f"{url} {at}", 2.5) for url in urls for at in range(2)]
        assert list(pool.map(lambda job: run(*job), jobs)) == ["passed"] * len(jobs)
        for url in urls:
            queue = httpx.get(f"{url}/info", trust_env=False).json()["queues"]["execute"]
            assert queue["oldest_ms"] < 30_000
