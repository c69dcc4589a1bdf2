"""Real faults under every dialect and three real clients: a worker is killed, Redis dies, a program prints what no JSON
can hold, and the answers are right all the same.

A table of `docs/dialects.md` is made here, a column by each test: `pytest tests/conformance/test_outages.py --rewrite`.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sandbox.capabilities import HostCapabilities
from service.api.compat.registry import DIALECTS
from support.broker import Broker
from support.checkpoints import checkpoint
from support.pages import ROOT, publish, with_column
from support.probes import PROBES, Case
from support.stack import Stack, wait_for

pytestmark = pytest.mark.timeout(300)

PAGE = ROOT / "docs" / "dialects.md"
MEGABYTE = 1 << 20
SLEEPS = Case("import time; time.sleep(0.3)")
NUMBERS = itertools.count(1000)


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack to be hurt: leases are short, data survive the broker's death."""
    walls = HostCapabilities.probe()
    if walls.level not in ("strong", "userns"):
        pytest.skip(f"programs cannot run here; missing: {'; '.join(walls.missing)}")
    model = checkpoint(tmp_path_factory.mktemp("tiny"))
    with Broker(append_only=True) as broker, Stack(broker, model, lease_s="1", heartbeat_s="0.3") as one:
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


def sleeping(seconds: float, number: int) -> str:
    return f"import time; time.sleep({seconds}); print(int(input()) * {number})"


@pytest.fixture
def asked(frail: Stack, verl_sandbox: Any, openrlhf_agent: Any) -> Callable[[int], list[Future[Any]]]:
    """Start verl's, OpenRLHF's and a reranker's calls; each has its right answer beside it."""

    def verl(number: int) -> bool:
        tests = {"inputs": ["1\n", "2\n", "3\n"], "outputs": [f"{n * number}\n" for n in (1, 2, 3)]}
        completion = f"```python\n{sleeping(0.5, number)}\n```"
        value, metadata = verl_sandbox.compute_score(
            f"{frail.url}/run_code", threading.Semaphore(8), 1024, completion, tests
        )
        return bool(value == 1.0) or metadata

    def openrlhf(number: int) -> bool:
        executor = openrlhf_agent.SingleTurnAgentExecutor(f"{frail.url}/get_reward")
        query = f"```python\nimport time\ntime.sleep(0.5)\ndef f():\n    return {number}\n```"

        async def fetch() -> Any:
            return await executor._fetch_rewards_via_http([query], [""], [[f"assert f() == {number}"]])

        (one,) = asyncio.run(fetch())
        return bool(one["rewards"] == [1.0] and one["extra_logs"]["reward_ok"] == [1.0]) or one

    def scored(number: int) -> bool:
        executor = openrlhf_agent.SingleTurnAgentExecutor(f"{frail.url}/get_reward?reward=model")

        async def fetch() -> Any:
            return await executor._fetch_rewards_via_http([f"text {number}"], [""], [None])

        (one,) = asyncio.run(fetch())
        return bool(one["extra_logs"]["reward_ok"] == [1.0]) or one

    def start(number: int) -> list[Future[Any]]:
        pool = ThreadPoolExecutor(8)
        calls = [pool.submit(call, number) for call in (verl, openrlhf, scored)]
        pool.shutdown(wait=False)
        return calls

    return start


@pytest.fixture
def meets(frail: Stack, request: pytest.FixtureRequest) -> Iterator[Callable[[str, Case], Callable[[], None]]]:
    """Start every dialect's call under a fault; the answer compares the outcomes with their column of the page.

    A score is right if it is the one that the same question gets once more.
    """
    pool = ThreadPoolExecutor(len(PROBES))

    def start(fault: str, case: Case) -> Callable[[], None]:
        number = next(NUMBERS)

        def asked(name: str) -> Any:
            return PROBES[name].outcome(frail.url, case, number, DIALECTS[name].retry_status)

        calls = {name: pool.submit(asked, name) for name in PROBES}

        def cell(name: str) -> str:
            value, probe = calls[name].result(120), PROBES[name]
            right = probe.right(case, number) if probe.right is not None else asked(name)
            return str(value) if value != right or (probe.right is None and isinstance(value, int)) else "right"

        def compare() -> None:
            cells = {f"`{probe.path}`": cell(name) for name, probe in PROBES.items()}
            publish(
                PAGE,
                "outages",
                lambda old: with_column(old, fault, cells),
                rewrite=request.config.getoption("--rewrite"),
            )

        return compare

    yield start
    pool.shutdown()


def answers(calls: list[Future[Any]]) -> list[Any]:
    return [call.result(120) for call in calls]


def test_a_killed_worker_is_nobody_s_zero(frail: Stack, asked: Any, meets: Any) -> None:
    calls, compare = asked(101), meets("worker killed", SLEEPS)
    time.sleep(0.3)
    frail.of_kind("execute")[0].kill()
    frail.of_kind("score")[0].kill()
    time.sleep(2)
    frail.start_executor()
    frail.start_scorer()
    assert answers(calls) == [True, True, True]
    compare()


@pytest.mark.extended
def test_a_call_that_finds_nobody_waits_for_somebody(frail: Stack, asked: Any, meets: Any) -> None:
    frail.of_kind("execute")[0].stop()
    frail.of_kind("score")[0].stop()
    wait_for(lambda: not httpx.get(f"{frail.url}/ready", trust_env=False).is_success)
    calls, compare = asked(102), meets("no worker for a while", SLEEPS)
    time.sleep(1)
    frail.start_executor()
    frail.start_scorer()
    assert answers(calls) == [True, True, True]
    compare()


def test_redis_may_die_and_come_back(frail: Stack, asked: Any, meets: Any) -> None:
    wait_for(lambda: httpx.get(f"{frail.url}/ready", trust_env=False).is_success, 60)
    calls, compare = asked(103), meets("Redis gone and back", SLEEPS)
    time.sleep(0.3)
    frail.broker.kill()
    time.sleep(2)
    frail.broker.start()
    assert answers(calls) == [True, True, True]
    compare()


def test_much_output_is_no_fault(meets: Any) -> None:
    meets("1 MB output", Case(f"print('x' * {MEGABYTE})", "x" * MEGABYTE + "\n", "word " * (MEGABYTE // 5)))()


def test_output_that_is_no_text_is_no_fault(meets: Any) -> None:
    before = "import sys\nsys.stdout.buffer.write(b'\\xff\\n')\nsys.stdout.flush()"
    meets("invalid UTF-8", Case(before, "\ufffd\n", "\ud800"))()
