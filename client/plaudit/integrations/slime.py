"""`custom_rm` for slime's and miles' `--custom-rm-path`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Unpack

from plaudit.integrations.batcher import LONG_TIMEOUT_S, RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions
from plaudit.integrations.rows import TrainerRow
from plaudit.ray_address import RAY_URL


def custom_rm(
    url: str = RAY_URL, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[BatcherOptions]
) -> Callable[..., Awaitable[Any]]:
    """A function for `--custom-rm-path`.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        fallback: The number of a sample without a reward, which is then also taken out of the loss
            (`remove_sample`). None: the call raises, which fails the rollout.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default.

    Returns:
        An awaited function of slime's `args` and a sample or, under `--group-rm`, a list of them. It returns numbers,
        or dicts of them under `--reward-key`.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a sample without tests that can be read.

    Example:
        >>> from plaudit.integrations import slime
        >>> custom_rm = slime.custom_rm("http://127.0.0.1:8000")
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    return partial(_reward, batcher_for("slime.custom_rm", url, api_key, options, fallback=fallback), fallback)


async def _reward(batcher: RewardBatcher, fallback: float | None, args: Any, sample: Any, **_: Any) -> Any:
    samples = sample if isinstance(sample, list) else [sample]
    rows = [TrainerRow(each.prompt, each.response, each.label) for each in samples]
    rewards = [await batcher.reward_async(rows[0])] if len(rows) == 1 else await batcher.rewards_async(rows)
    log_missing(rewards)
    metrics = [reward.metrics(fallback) for reward in rewards]
    for each, reward in zip(samples, rewards, strict=True):
        if reward.reward is None:
            each.remove_sample = True
    values: list[Any] = metrics if getattr(args, "reward_key", None) else [row["score"] for row in metrics]
    return values if isinstance(sample, list) else values[0]
