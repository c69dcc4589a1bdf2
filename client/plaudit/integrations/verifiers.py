"""Rewards for verifiers: of a task of `verifiers.v1`, and a function for the `Rubric` of older versions."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Unpack

from plaudit.errors import PlauditError
from plaudit.integrations.batcher import LONG_TIMEOUT_S, RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions, Misconfigured
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


def task_reward(
    url: str = RAY_URL, api_key: str | None = None, *, column: str = "tests", **options: Unpack[BatcherOptions]
) -> Callable[..., Awaitable[float]]:
    """A reward of `verifiers.v1`; the tests are in a field of the task's data.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        column: Field of the task's data that holds the tests.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default.

    Returns:
        An awaited function of `task, trace`, for a task's `@vf.reward`, or by its import path for the configuration's
        `task.rewards.NAME.fn`. It rewards the trace's last reply, and records `pass_rate` and `rm` as metrics of the
        trace. Without a reward it raises, which ends the rollout with an error.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a task without tests that can be read.

    Example:
        >>> from plaudit.integrations.verifiers import task_reward
        >>> code = task_reward("http://127.0.0.1:8000")
        >>> class CodeTask(vf.Task[CodeData]):
        ...     @vf.reward
        ...     async def plaudit(self, trace: vf.Trace) -> float:
        ...         return await code(self.data, trace)
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    return partial(_task_reward, batcher_for("verifiers.task_reward", url, api_key, options, column=column), column)


async def _task_reward(batcher: RewardBatcher, column: str, /, task: Any, trace: Any) -> float:
    if not hasattr(task, column) and batcher.needs_tests:
        raise Misconfigured(
            f"{column}: the task's data has no such field, which is to hold the tests; there are "
            f"{', '.join(sorted(type(task).model_fields))}"
        )
    row = TrainerRow(_asked(task), trace.last_reply, getattr(task, column, None), column)
    reward = await batcher.reward_async(row)
    log_missing([reward])
    value = reward.value()
    parts = {"pass_rate": reward.pass_rate, "rm": reward.rm}
    trace.record_metrics({name: part for name, part in parts.items() if part is not None})
    return value


def _asked(task: Any) -> Any:
    """What a task asks, its system prompt included, as text or messages."""
    prompt = task.prompt
    if prompt is not None and not isinstance(prompt, str):
        prompt = [message.model_dump(exclude_none=True) for message in prompt]
    if task.system_prompt is None:
        return prompt
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
    return [{"role": "system", "content": task.system_prompt}, *asked]


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
