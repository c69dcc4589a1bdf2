"""A new version goes out process by process, over one Redis, in either order: nobody gets a wrong answer or an outage.

The version before is this repository's own, by its commit, so these tests need its history; a shallow clone skips them.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.queue.keys import EXECUTE_QUEUE, Keys
from support.asks import Ask, Asks, crowd, insist
from support.stack import Stack, wait_for

ROOT = Path(__file__).parents[2]
PREVIOUS = "275bb0d75b"  # the version that is running when this one goes out; the next release names its predecessor
MakeStack = Callable[..., Stack]


@pytest.fixture(scope="module")
def previous_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the version before."""
    git = shutil.which("git")
    known = git and subprocess.run([git, "cat-file", "-e", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
    if not known or known.returncode:
        pytest.skip(f"needs git and the history of the repository, with commit {PREVIOUS} in it")
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(
        [str(git), "archive", PREVIOUS, "client", "service", "sandbox"], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


@contextmanager
def running(stack: Stack, code: Path | None) -> Iterator[None]:
    """Processes that start in this block run the code of this folder; None: that of this checkout."""
    environ = stack.environ
    if code is not None:
        stack.environ = environ | {"PYTHONPATH": f"{code}:{code / 'client'}", "PYTHONSAFEPATH": "1"}
    yield
    stack.environ = environ


@pytest.fixture
def old_stack(make_stack: MakeStack, previous_code: Path) -> Stack:
    """The version before, ready: an API, a scorer, an executor."""
    stack = make_stack(scorers=0, executors=0, lease_s="3", heartbeat_s="0.5", drain_s="10")
    api = stack.api
    assert api is not None
    api.close()
    with running(stack, previous_code):
        stack.start_scorer()
        stack.start_executor()
        stack.start_api()
    return stack


def replace_workers(stack: Stack) -> None:
    """A new worker of each kind is ready before the old one of that kind is told to end."""
    for kind, start in (("score", stack.start_scorer), ("execute", stack.start_executor)):
        old_workers = stack.of_kind(kind)
        start().line()
        for old_worker in old_workers:
            assert old_worker.stop() == 0


def replace_api(stack: Stack) -> None:
    """A new API is ready, and is the stack's from here on, before the old one is told to drain."""
    old_api = stack.api
    assert old_api is not None
    stack.start_api()
    assert old_api.stop() == 0


async def under_load(client: httpx.AsyncClient, asks: Asks, replace: Callable[[], None]) -> list[Ask]:
    """Send requests of every kind and manner, batch by batch, until the processes are replaced; answers all of them."""
    salt, sent = asks.salt, list[Ask]()
    replacing = asyncio.create_task(asyncio.to_thread(replace))
    while not replacing.done():
        asks.salt = f"{salt}-{len(sent)}"
        batch = [asks.slow(len(sent)), *asks.mix(scores=2, executes=4, ranks=2)]
        sent += batch
        await crowd(client, batch)
    await replacing
    return sent


def assert_no_loop_broke(stack: Stack) -> None:
    for process in stack.processes:
        broken = [line for line in process.logged() if line["level"] in ("error", "critical")]
        assert not broken, broken


@pytest.mark.extended
async def test_workers_first(old_stack: Stack, asks: Asks) -> None:
    async with old_stack.async_client() as old_api:
        sent = await under_load(old_api, asks, lambda: replace_workers(old_stack))
        await insist(old_api, sent)
        replace_api(old_stack)
    async with old_stack.async_client() as new_api:
        await crowd(new_api, sent, resets=True)  # under the same keys: kept by the version before, and read by this one
        await insist(new_api, sent)
    assert_no_loop_broke(old_stack)


async def test_the_api_first(old_stack: Stack, asks: Asks) -> None:
    replace_api(old_stack)
    async with old_stack.async_client() as new_api:
        sent = await under_load(new_api, asks, lambda: replace_workers(old_stack))
        await insist(new_api, sent)
    assert_no_loop_broke(old_stack)


@pytest.mark.extended
async def test_an_old_api_drains_beside_a_new_one(old_stack: Stack, asks: Asks) -> None:
    old_api = old_stack.api
    assert old_api is not None
    async with old_stack.async_client() as client:
        old_stack.start_api()
        slow_programs = [asks.slow(number) for number in range(30)]  # 15 s: some outlast the drain

        def drain() -> None:
            with old_stack.broker.client() as broker:
                live = Keys("plaudit").live(EXECUTE_QUEUE)
                wait_for(lambda: broker.zcard(live) > len(slow_programs) - 4, what="requests that are all admitted")
            old_api.signal(signal.SIGTERM)

        await crowd(client, slow_programs, disturb=drain)
        assert await asyncio.to_thread(old_api.stop) == 0
    async with old_stack.async_client() as new_api:
        await insist(new_api, slow_programs)
    assert_no_loop_broke(old_stack)


@pytest.mark.extended
async def test_both_versions_beside_each_other(old_stack: Stack, asks: Asks) -> None:
    """Two APIs and two workers of each kind, one of each version; every request goes to one API, then to the other."""
    async with old_stack.async_client() as old_api:
        for start in (old_stack.start_scorer, old_stack.start_executor):
            start().line()
        old_stack.start_api()
        async with old_stack.async_client() as new_api:
            mixed = asks.mix(scores=6, executes=12, ranks=6)
            for first, second in ((old_api, new_api), (new_api, old_api)):
                await asyncio.gather(crowd(first, mixed[::2]), crowd(second, mixed[1::2]))
                await asyncio.gather(insist(first, mixed[::2]), insist(second, mixed[1::2]))
    assert_no_loop_broke(old_stack)


@pytest.mark.extended
async def test_prompts_without_tests_are_ranked_while_old_executors_remain(old_stack: Stack) -> None:
    """An old executor cannot observe programs and may take any job: evidence is passed over, and the answer says so."""
    prompt = 'def double(x):\n    """\n    >>> double(2)\n    4\n    >>> double(3)\n    6\n    """\n'
    body = {"items": [{"prompt": prompt, "completions": ["    return x + 2\n", "    return x * 2\n"]}]}
    old_executors = old_stack.of_kind("execute")
    old_stack.start_executor().line()
    replace_api(old_stack)

    async def codes(client: httpx.AsyncClient) -> set[str | None]:
        response = await client.post("/rank", json=body)
        assert response.status_code == 200, response.text
        completions = response.json()["results"][0]["completions"]
        assert all(one["reward"] is not None for one in completions)
        return {(one["components"]["examples"]["error"] or {}).get("code") for one in completions}

    async with old_stack.async_client() as client:
        assert await codes(client) == {"no_worker"}
        spec = {"terms": [{"name": "shown", "type": "examples"}]}
        assert (await client.post("/reward", json=body | {"spec": spec})).status_code == 503
        for executor in old_executors:
            assert await asyncio.to_thread(executor.stop) == 0
        for _ in range(100):
            if (found := await codes(client)) == {None}:
                break
            await asyncio.sleep(0.1)
        assert found == {None}
    assert_no_loop_broke(old_stack)
