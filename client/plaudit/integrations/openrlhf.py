"""`reward_func` for OpenRLHF's `--reward.remote_url`, and `step` for its agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from plaudit.integrations.batcher import LONG_TIMEOUT_S, RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions
from plaudit.integrations.rows import TrainerRow
from plaudit.ray_address import RAY_URL


def reward_func(
    url: str = RAY_URL, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[BatcherOptions]
) -> Callable[..., dict[str, Any]]:
    """`reward_func` in the file that `--reward.remote_url` names.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        fallback: The number of a row without a reward, beside `reward_ok` 0. None: the call raises, which ends the
            run; so set it for long runs.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default.

    Returns:
        A function of `queries, prompts, labels`, which returns `rewards`, `scores` and `extra_logs`.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a row without tests that can be read.

    Example:
        >>> from plaudit.integrations import openrlhf
        >>> reward_func = openrlhf.reward_func("http://127.0.0.1:8000", fallback=-1.0)
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    return partial(_reward, batcher_for("openrlhf.reward_func", url, api_key, options, fallback=fallback), fallback)


def agent_step(
    url: str = RAY_URL, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[BatcherOptions]
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """`step` of an agent (`--train.agent_func_path`): one turn, then the reward.

    Args and Raises as in `reward_func`.

    Returns:
        An awaited function of the agent's `states`, which returns what OpenRLHF takes from a step.

    Example:
        >>> from plaudit.integrations import openrlhf
        >>> step = openrlhf.agent_step("http://127.0.0.1:8000")
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    return partial(_step, batcher_for("openrlhf.agent_step", url, api_key, options, fallback=fallback), fallback)


def _reward(
    batcher: RewardBatcher,
    fallback: float | None,
    /,
    queries: Sequence[str],
    prompts: Sequence[Any],
    labels: Sequence[Any],
    **_: Any,
) -> dict[str, Any]:
    rows = [
        TrainerRow(prompt, query.removeprefix(prompt) if isinstance(prompt, str) else query, label, "labels")
        for query, prompt, label in zip(queries, prompts, labels, strict=True)
    ]
    rewards = [batcher.reward(rows[0])] if len(rows) == 1 else batcher.rewards(rows)
    log_missing(rewards)
    metrics = [reward.metrics(fallback) for reward in rewards]
    columns = {name: [row[name] for row in metrics] for name in ("reward_ok", "pass_rate", "rm")} if metrics else {}
    scores = [row["score"] for row in metrics]
    return {"rewards": scores, "scores": scores, "extra_logs": columns}


async def _step(batcher: RewardBatcher, fallback: float | None, states: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    row = TrainerRow(states["observation_text"], states["action_text"], states["label"])
    reward = await batcher.reward_async(row)
    log_missing([reward])
    metrics = reward.metrics(fallback)
    score = metrics.pop("score")
    return {
        "rewards": score,
        "scores": score,
        "environment_feedback": "",
        "done": True,
        "extra_logs": metrics,
        "sampling_params": states.get("sampling_params"),
    }
