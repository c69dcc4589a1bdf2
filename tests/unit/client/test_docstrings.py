"""Every public call of `plaudit` documents its arguments, its result, its errors, and shows an example."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import plaudit
from plaudit.integrations import areal, inspect_ai, openrlhf, skyrl, slime, trl, verifiers, verl
from plaudit.integrations.batcher import RewardBatcher

CALLS = {
    f"Client.{name}": function
    for name, function in inspect.getmembers(plaudit.Client, inspect.isfunction)
    if not name.startswith("_") and name not in ("run", "close")
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "best_of_n": plaudit.best_of_n,
    "areal.reward_fn": areal.reward_fn,
    "inspect_ai.code_scorer": inspect_ai.code_scorer,
    "openrlhf.agent_step": openrlhf.agent_step,
    "openrlhf.reward_func": openrlhf.reward_func,
    "skyrl.env_mixin": skyrl.env_mixin,
    "slime.custom_rm": slime.custom_rm,
    "trl.reward_function": trl.reward_function,
    "verifiers.reward_func": verifiers.reward_func,
    "verifiers.task_reward": verifiers.task_reward,
    "verl.compute_score": verl.compute_score,
    "verl.compute_score_batch": verl.compute_score_batch,
    "verl.compute_score_blocking": verl.compute_score_blocking,
    "RewardBatcher.reward": RewardBatcher.reward,
    "RewardBatcher.rewards": RewardBatcher.rewards,
}


@pytest.mark.parametrize("name", [*CALLS, *FUNCTIONS])
def test_a_public_call_documents_what_it_takes_gives_and_raises(name: str) -> None:
    function = CALLS.get(name) or FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    sections = ["Raises", "Example"]
    if set(signature.parameters) - {"self"}:
        sections.append("Args")
    if signature.return_annotation != "None":
        sections.append("Returns")
    assert [section for section in sections if section not in text] == []


@pytest.mark.parametrize("name", [name.removeprefix("Client.") for name in CALLS])
def test_an_awaited_call_points_to_the_blocking_one(name: str) -> None:
    assert f"`Client.{name}`" in (inspect.getdoc(getattr(plaudit.AsyncClient, name)) or "")
