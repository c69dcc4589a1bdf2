"""What nobody waits for stops between two slices, and others go first there: a large group shuts nobody out.

A slice is a batch, counted by `plaudit_score_batch_tokens`. The large group is many times larger than a batch. The
scorer is stopped (SIGSTOP) while somebody asks or hangs up, so a slow machine changes nothing about what is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.scoring.reward_model import RewardModel
from support.broker import Broker
from support.checkpoints import checkpoint, write_family
from support.stack import Stack, wait_for

SLICE_TOKENS = 1024
COMPLETIONS = 600
WORDS = ["add", "sum", "max", "min", "def", "for", "in", "if", "list", "not", "return", "pass"]
WIDE = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
# The slice that is computed, the next one, and one's own; counted a moment after its scores are answered.
TWO_SLICES_AND_ITS_OWN = 3


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("large"), "qwen2", positions=256, shape=WIDE)


@pytest.fixture(scope="module")
def slices(large_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One scorer with the models `default`, in which a large group takes a while, and `small`."""
    small = checkpoint(tmp_path_factory.mktemp("small"))
    with (
        Broker() as broker,
        Stack(broker, large_model, scorers=0, executors=0, max_batch_tokens=str(SLICE_TOKENS)) as stack,
    ):
        stack.start_scorer("--model", f"small={small}")

        def served() -> bool:
            with stack.client() as client:
                return {model["name"] for model in client.get("/models").json()["models"]} >= {"default", "small"}

        wait_for(served, 120, "the models to be served")
        yield stack


def num_slices(stack: Stack) -> float:
    return stack.metric("plaudit_score_batch_tokens_count")


def depth(stack: Stack, model: str) -> int:
    """How many jobs of a model wait or run."""
    with stack.client() as client:
        return int(client.get("/info").json()["queues"][f"score:{model}"]["depth"])


async def until_depth(stack: Stack, model: str, value: int) -> None:
    await asyncio.to_thread(wait_for, lambda: depth(stack, model) == value, 30, f"{value} jobs of {model}")


@contextlib.contextmanager
def stopped(stack: Stack) -> Iterator[None]:
    """The scorer does nothing meanwhile."""
    (scorer,) = stack.of_kind("score")
    scorer.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scorer.signal(signal.SIGCONT)


@pytest.fixture
async def http(slices: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a scorer that has nothing to do."""
    await until_depth(slices, "default", 0)
    async with slices.async_client() as client:
        yield client


def large_group(**more: Any) -> dict[str, Any]:
    """Completions with little in common: more than 20 slices of `SLICE_TOKENS`."""
    draw, prompt = random.Random(0), uuid.uuid4().hex
    completions = [" ".join(draw.choices(WORDS, k=20)) + f" {at}" for at in range(COMPLETIONS)]
    return {"items": [{"prompt": prompt, "completions": completions}], **more}


def single(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "items": [{"prompt": "p", "completions": [uuid.uuid4().hex]}], **more}


async def begun(stack: Stack, client: httpx.AsyncClient, group: dict[str, Any]) -> asyncio.Task[httpx.Response]:
    """Ask for a large group; it is in progress when this returns."""
    before = await asyncio.to_thread(num_slices, stack)
    asked = asyncio.create_task(client.post("/score", json=group))
    await asyncio.to_thread(wait_for, lambda: num_slices(stack) > before, 30, "the first slice")
    return asked


def completions_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    completions: list[dict[str, Any]] = response.json()["results"][0]["completions"]
    return completions


async def test_hanging_up_frees_the_scorer_within_two_slices(slices: Stack, http: httpx.AsyncClient) -> None:
    group = await hung_up(slices, http)
    again = completions_of(await http.post("/score", json=group))
    if not any(completion["cached"] for completion in again):  # seen once on a busy host; caching may fail, not always
        again = completions_of(await http.post("/score", json=await hung_up(slices, http)))
    assert {completion["status"] for completion in again} == {"ok"}
    assert any(completion["cached"] for completion in again), "finished slices are not computed again"


async def hung_up(slices: Stack, http: httpx.AsyncClient) -> dict[str, Any]:
    """A large group whose client hangs up; nobody waits for more of it than two slices."""
    group = large_group()
    asked = await begun(slices, http, group)
    with stopped(slices):
        assert not asked.done()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until_depth(slices, "default", 0)
        before = num_slices(slices)
    (completion,) = completions_of(await http.post("/score", json=single("default")))
    assert completion["status"] == "ok"
    assert num_slices(slices) - before <= TWO_SLICES_AND_ITS_OWN
    return group


@pytest.mark.parametrize(("model", "priority"), [("default", "high"), ("small", "normal"), ("small", "high")])
async def test_a_single_request_waits_for_two_slices_of_a_large_group_at_most(
    slices: Stack, http: httpx.AsyncClient, model: str, priority: str
) -> None:
    """One of a higher lane, and one of another model."""
    large = await begun(slices, http, large_group())
    waited = []
    for _ in range(3):  # another slice may end between an answer and the look at the counter, but hardly three times
        with stopped(slices):
            assert not large.done()
            asked = asyncio.create_task(http.post("/score", json=single(model, priority=priority)))
            await until_depth(slices, model, 2 if model == "default" else 1)
            before = num_slices(slices)
        (completion,) = completions_of(await asked)
        waited.append(num_slices(slices) - before)
        assert completion["status"] == "ok"
        if waited[-1] <= TWO_SLICES_AND_ITS_OWN:
            break  # asked once more, the large group might just have ended

    assert min(waited) <= TWO_SLICES_AND_ITS_OWN
    assert not large.done()
    assert {completion["status"] for completion in completions_of(await large)} == {"ok"}


async def test_a_late_group_comes_back_with_the_scores_of_its_finished_slices(
    slices: Stack, http: httpx.AsyncClient, large_model: Path
) -> None:
    deadline_ms, statuses = 200, {"timeout_queue"}
    while statuses == {"timeout_queue"}:
        await until_depth(slices, "default", 0)
        group = large_group(deadline_ms=deadline_ms)
        response = await http.post("/score", json=group)
        late = completions_of(response)
        statuses = {completion["status"] for completion in late}
        deadline_ms = deadline_ms * 3 // 2

    assert statuses == {"ok", "timeout_queue"}
    assert response.json()["status"] == "partial"
    assert [completion["score"] is None for completion in late] == [one["status"] != "ok" for one in late]
    assert {completion["trainable"] for completion in late if completion["status"] != "ok"} == {False}

    await until_depth(slices, "default", 0)
    before = num_slices(slices)
    await http.post("/score", json=single("small"))
    assert num_slices(slices) - before <= TWO_SLICES_AND_ITS_OWN, "nothing more is computed of it"

    undisturbed, (item,) = RewardModel.load(str(large_model), dtype="float32", threads=1), group["items"]
    done = [at for at, completion in enumerate(late) if completion["status"] == "ok"]
    encoded = [undisturbed.encode(item["prompt"], item["completions"][at]) for at in done[:: max(1, len(done) // 20)]]
    scores = [late[at]["score"] for at in done[:: max(1, len(done) // 20)]]
    assert scores == pytest.approx([undisturbed.score([one])[0] for one in encoded], abs=1e-4, rel=1e-4)
