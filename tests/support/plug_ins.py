"""Every plug-in of `plaudit.integrations` as its trainer would call it, and what a scripted desk answers it."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from plaudit.integrations import areal, inspect_ai, openrlhf, skyrl, slime, verifiers, verl
from plaudit.schemas import CompletionReward, Component, GroupStatistics, RewardAnswer, RewardResult, Timing
from plaudit.tests_first import SMALLEST_STEP

GOOD = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```"
BAD = "```python\ndef add(a, b):\n    return a - b\n```"
NONE = "I would rather not."
TESTS = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
PROMPT = "Write add."
TIE = 1 / SMALLEST_STEP
PLUG_INS = (
    "verl",
    "verl, plain",
    "verl, batch",
    "openrlhf",
    "slime",
    "areal",
    "skyrl",
    "verifiers",
    "verifiers v1",
    "inspect ai",
)


def about(*rates: float) -> Any:
    """Pass rates, with what the model adds where it breaks ties: less than half of one test."""
    return [pytest.approx(rate + TIE / 2, abs=TIE / 2) for rate in rates]


def answered(asked: Any) -> Any:
    """What the scripted desk answers `/reward` with: 1 for each."""
    part = Component(status="ok", value=1.0, contribution=1.0)
    one = CompletionReward(status="ok", reward=1.0, trainable=True, components={"tests": part})
    group = GroupStatistics(n=1, n_ok=1, degenerate=True)
    results = [RewardResult(completions=[one] * len(item.completions), group=group) for item in asked.items]
    return RewardAnswer(request_id="r", status="complete", results=results, timing=Timing())


def sample(response: str, label: Any = TESTS) -> Any:
    """One of slime's."""
    return types.SimpleNamespace(prompt=PROMPT, response=response, label=label, remove_sample=False)


def run(function: Any, *args: Any) -> Any:
    """An awaited plug-in in an event loop of its own."""

    async def once() -> Any:
        try:
            return await function(*args)
        finally:
            await function.args[0].close_async()

    return asyncio.run(once())


def rollout(reply: str, prompt: Any = PROMPT, system_prompt: str | None = None, **fields: Any) -> tuple[Any, Any]:
    """A task's data and a trace, as `verifiers.v1` hands them over."""

    class Data(types.SimpleNamespace):
        model_fields = {"prompt": None, **dict.fromkeys(fields)}  # noqa: RUF012

    metrics: dict[str, float] = {}
    trace = types.SimpleNamespace(last_reply=reply, metrics=metrics, record_metrics=metrics.update)
    return Data(prompt=prompt, system_prompt=system_prompt, **fields), trace


def inspect_score(url: str, label: Any = TESTS, completion: str = GOOD, **options: Any) -> Any:
    """A sample's score by Inspect's scorer, in the least of Inspect that it uses; test_own_packages.py has all."""

    class InspectScore(types.SimpleNamespace):
        @classmethod
        def unscored(cls, **fields: Any) -> Any:
            return cls(value=None, **fields)

    package = types.ModuleType("inspect_ai.scorer")
    vars(package).update(Score=InspectScore, accuracy=str, mean=str, stderr=str, scorer=lambda **_: lambda make: make)
    choices = [completion] if completion else []
    state = types.SimpleNamespace(
        input=PROMPT, metadata=label, output=types.SimpleNamespace(completion=completion, choices=choices)
    )
    with patch.dict(sys.modules, {"inspect_ai": types.ModuleType("inspect_ai"), "inspect_ai.scorer": package}):
        return run(inspect_ai.code_scorer(url, **options), state, [""])


def rewards_of(url: str, label: Any = TESTS, **options: Any) -> dict[str, Callable[[], Any]]:
    """Every plug-in as its trainer would call it."""
    plain = types.SimpleNamespace(reward_key=None)

    def episode() -> Any:
        return type("Env", (skyrl.env_mixin(url, **options),), {})({}, {"reward_spec": {"ground_truth": label}})

    return {
        "verl": lambda: run(verl.compute_score(url, **options), "taco", GOOD, label),
        "verl, plain": lambda: verl.compute_score_blocking(url, **options)("taco", GOOD, label),
        "verl, batch": lambda: verl.compute_score_batch(url, **options)(["taco"], [GOOD], [label]),
        "openrlhf": lambda: openrlhf.reward_func(url, **options)([GOOD], [PROMPT], [label]),
        "slime": lambda: run(slime.custom_rm(url, **options), plain, sample(GOOD, label)),
        "areal": lambda: areal.reward_fn(url, **options)(PROMPT, GOOD, [1], [1], tests=label),
        "skyrl": lambda: episode().step(GOOD),
        "verifiers": lambda: run(verifiers.reward_func(url, **options), PROMPT, GOOD, "", {"tests": label}),
        "verifiers v1": lambda: run(verifiers.task_reward(url, **options), *rollout(GOOD, tests=label)),
        "inspect ai": lambda: inspect_score(url, {"tests": label}, **options),
    }
