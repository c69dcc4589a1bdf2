"""`compute_score` for verl's `reward.custom_reward_function`, in the three forms that its reward managers call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from plaudit.integrations.batcher import LONG_TIMEOUT_S, RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions
from plaudit.integrations.rows import TrainerRow, prompt_messages
from plaudit.ray_address import RAY_URL

Metrics = dict[str, float]


def compute_score(
    url: str = RAY_URL, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[BatcherOptions]
) -> Callable[..., Awaitable[Metrics]]:
    """An awaited `compute_score` (`naive`, `dapo`): samples in flight share requests.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        fallback: The number of a row without a reward, beside `reward_ok` 0. None: the row raises, which ends the step.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default.

    Returns:
        A function of `data_source, solution_str, ground_truth, extra_info`, which returns `score`, `reward_ok`,
        `pass_rate` and `rm`.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a row without tests that can be read.

    Example:
        >>> from plaudit.integrations import verl
        >>> compute_score = verl.compute_score("http://127.0.0.1:8000")
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    return partial(_score, batcher_for("verl.compute_score", url, api_key, options, fallback=fallback), fallback)


def compute_score_blocking(
    url: str = RAY_URL, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[BatcherOptions]
) -> Callable[..., Metrics]:
    """`compute_score` for managers that call plain functions (`remote`, the legacy `naive`, `prime` and `dapo`).

    Args, Returns and Raises as in `compute_score`; the function is not awaited.

    Example:
        >>> from plaudit.integrations import verl
        >>> compute_score = verl.compute_score_blocking("http://127.0.0.1:8000")
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    batcher = batcher_for("verl.compute_score_blocking", url, api_key, options, fallback=fallback)
    return partial(_score_blocking, batcher, fallback)


def compute_score_batch(
    url: str = RAY_URL, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[BatcherOptions]
) -> Callable[..., list[Metrics]]:
    """`compute_score` for the `batch` manager: one request per batch.

    Args and Raises as in `compute_score`.

    Returns:
        A function of `data_sources, solution_strs, ground_truths, extra_infos`, which returns a list of what
        `compute_score` returns.

    Example:
        >>> from plaudit.integrations import verl
        >>> compute_score = verl.compute_score_batch("http://127.0.0.1:8000")
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    batcher = batcher_for("verl.compute_score_batch", url, api_key, options, fallback=fallback)
    return partial(_score_batch, batcher, fallback)


async def _score(
    batcher: RewardBatcher,
    fallback: float | None,
    /,
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    **_: Any,
) -> Metrics:
    reward = await batcher.reward_async(_row(solution_str, ground_truth, extra_info))
    log_missing([reward])
    return reward.metrics(fallback)


def _score_blocking(
    batcher: RewardBatcher,
    fallback: float | None,
    /,
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    **_: Any,
) -> Metrics:
    reward = batcher.reward(_row(solution_str, ground_truth, extra_info))
    log_missing([reward])
    return reward.metrics(fallback)


def _score_batch(
    batcher: RewardBatcher,
    fallback: float | None,
    /,
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Any] | None = None,
    **_: Any,
) -> list[Metrics]:
    infos = extra_infos if extra_infos is not None else [None] * len(solution_strs)
    rewards = batcher.rewards([_row(*row) for row in zip(solution_strs, ground_truths, infos, strict=True)])
    log_missing(rewards)
    return [reward.metrics(fallback) for reward in rewards]


def _row(solution: str, ground_truth: Any, extra_info: Any) -> TrainerRow:
    """verl hands the prompt over only where the data set has it in `extra_info`."""
    prompt = extra_info.get("prompt") or extra_info.get("question") if isinstance(extra_info, Mapping) else None
    return TrainerRow(prompt_messages(prompt), solution, ground_truth, "ground_truth")
