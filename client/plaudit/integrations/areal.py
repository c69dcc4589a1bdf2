"""`reward_fn` for AReaL's workflows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

from plaudit.integrations.batcher import RewardBatcher, batcher_for
from plaudit.integrations.config import BatcherOptions
from plaudit.integrations.rows import TrainerRow
from plaudit.ray_address import RAY_URL

TIMEOUT_S = 13.0  # AReaL gives an attempt 15 s, and after four of them says 0


def reward_fn(
    url: str = RAY_URL, api_key: str | None = None, *, column: str = "tests", **options: Unpack[BatcherOptions]
) -> Callable[..., float]:
    """A plain, picklable function that finishes before AReaL's own timeout does.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        column: Column of the data set that holds the tests.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 13 by default.

    Returns:
        A function of `prompt, completions, prompt_ids, completion_ids` and the row's columns. Without a reward it
        raises, so that AReaL tries again.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a row without tests that can be read.

    Example:
        >>> from plaudit.integrations import areal
        >>> reward_fn = areal.reward_fn("http://127.0.0.1:8000")
    """
    options.setdefault("timeout_s", TIMEOUT_S)
    return partial(_reward, batcher_for("areal.reward_fn", url, api_key, options, column=column), column)


def _reward(
    batcher: RewardBatcher,
    column: str,
    /,
    prompt: Any,
    completions: str,
    prompt_ids: Any = None,
    completion_ids: Any = None,
    **row: Any,
) -> float:
    return batcher.reward(TrainerRow(prompt, completions, row.get(column), column)).value()
