"""A reward function for verifiers' `Rubric(funcs=[…])`, or to be awaited in a task's `@vf.reward`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Unpack

from plaudit.errors import PlauditError
from plaudit.integrations.batcher import LONG_TIMEOUT_S, RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions
from plaudit.integrations.rows import TrainerRow, completion_text, has_tests, prompt_messages
from plaudit.ray_address import RAY_URL


def reward_func(
    url: str = RAY_URL, api_key: str | None = None, *, name: str = "plaudit", **options: Unpack[BatcherOptions]
) -> Callable[..., Awaitable[float]]:
    """A reward function; the tests are in `info`, else in `answer`.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        name: What verifiers logs the rewards under.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default.

    Returns:
        An awaited function of `prompt, completion, answer, info, state`. Without a reward it raises; where it got a
        `state` (the older `Rubric` turns exceptions into 0), it returns NaN and puts the error into `state["error"]`.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a row without tests that can be read.

    Example:
        >>> from plaudit.integrations import verifiers as plaudit_verifiers
        >>> rubric = vf.Rubric(funcs=[plaudit_verifiers.reward_func("http://127.0.0.1:8000")])
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    function = partial(_reward, batcher_for("verifiers.reward_func", url, api_key, options, name=name))
    function.__name__ = name  # type: ignore[attr-defined]
    return function


async def _reward(
    batcher: RewardBatcher,
    /,
    prompt: Any,
    completion: Any,
    answer: Any = None,
    info: Any = None,
    state: Any = None,
    **_: Any,
) -> float:
    try:
        label, field = (answer, "answer") if not has_tests(info) and has_tests(answer) else (info or answer, "info")
        row = TrainerRow(prompt_messages(prompt), completion_text(completion), label, field)
        reward = await batcher.reward_async(row)
        log_missing([reward])
        return reward.value()
    except PlauditError as error:
        if state is None:
            raise
        state["error"] = error  # an exception would be 0 there
        return math.nan
