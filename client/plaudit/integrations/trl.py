"""Reward functions for TRL: GRPO, RLOO, AsyncGRPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

from plaudit.integrations.batcher import RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions, Misconfigured
from plaudit.integrations.rows import TrainerRow, completion_text
from plaudit.ray_address import RAY_URL


def reward_function(
    url: str = RAY_URL,
    api_key: str | None = None,
    *,
    column: str = "tests",
    name: str = "plaudit",
    **options: Unpack[BatcherOptions],
) -> Callable[..., list[float | None]]:
    """A reward function for `reward_funcs`: one request per batch.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        column: Column of the data set that holds the tests.
        name: What TRL logs the rewards under.
        **options: `BatcherOptions`: reward, spec, language, timeout_s, …

    Returns:
        A function of a batch's prompts, completions and columns. Rows without a reward are None, which TRL masks.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a row without tests that can be read.

    Example:
        >>> from plaudit.integrations.trl import reward_function
        >>> GRPOTrainer(model, reward_funcs=[reward_function("http://127.0.0.1:8000")], train_dataset=data)
    """
    function = partial(
        _reward, batcher_for("trl.reward_function", url, api_key, options, column=column, name=name), column
    )
    function.__name__ = name  # type: ignore[attr-defined]  # what TRL logs it under
    return function


def _reward(
    batcher: RewardBatcher, column: str, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
) -> list[float | None]:
    labels = columns[column] if column in columns else [None] * len(completions)
    if column not in columns and batcher.needs_tests:
        raise Misconfigured(
            f"{column}: the data set has no such column, which is to hold the tests; there are "
            f"{', '.join(sorted(columns)) or 'none'}"
        )
    rows = [TrainerRow(*row, column) for row in zip(prompts, map(completion_text, completions), labels, strict=True)]
    rewards = batcher.rewards(rows)
    log_missing(rewards)
    if callable(log_extra := columns.get("log_extra")):
        log_extra("pass_rate", [reward.pass_rate for reward in rewards])
    if callable(log_metric := columns.get("log_metric")):
        log_metric("plaudit/reward_ok", sum(reward.reward is not None for reward in rewards) / max(1, len(rewards)))
    return [reward.reward for reward in rewards]
