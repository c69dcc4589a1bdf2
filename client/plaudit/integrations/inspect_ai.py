"""A scorer for Inspect AI: a sample's program, judged by the service instead of in a container of the evaluation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Literal, Unpack, cast, get_args

from plaudit.extract import code_of
from plaudit.integrations.batcher import LONG_TIMEOUT_S, RewardBatcher, batcher_for, log_missing
from plaudit.integrations.config import BatcherOptions, Misconfigured
from plaudit.integrations.row_rewards import RowReward
from plaudit.integrations.rows import TrainerRow, has_tests
from plaudit.ray_address import RAY_URL

ScoreValue = Literal["passed", "reward"]


def code_scorer(
    url: str = RAY_URL,
    api_key: str | None = None,
    *,
    value: ScoreValue = "passed",
    name: str = "plaudit",
    **options: Unpack[BatcherOptions],
) -> Callable[..., Awaitable[Any]]:
    """A scorer for `Task(scorer=…)`; the tests are in the sample's metadata, else in its target.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one. It is not written into Inspect's log.
        value: What a sample's score is: "passed" is C where every test passes and else I, with `accuracy`;
            "reward" is the number, with `mean`.
        name: What Inspect logs the scorer under.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default. `reward` is "tests" by
            default where `value` is "passed".

    Returns:
        A scorer of Inspect, for event loops of asyncio. Without a reward it raises, so that the sample ends with an
        error and has no score. A sample to which the model gave no answer is unscored.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, when it is called, a sample without tests that can be read.
        ModuleNotFoundError: `inspect_ai` is not installed.

    Example:
        >>> from plaudit.integrations.inspect_ai import code_scorer
        >>> Task(dataset=problems, solver=generate(), scorer=code_scorer("http://127.0.0.1:8000"))
    """
    if value not in get_args(ScoreValue):
        raise Misconfigured(f"value: {value!r}; there are {', '.join(get_args(ScoreValue))}")
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    if value == "passed" and options.get("spec") is None:
        options.setdefault("reward", "tests")  # what a model thinks of a program does not make it pass
    batcher = batcher_for("inspect_ai.code_scorer", url, api_key, options, value=value, name=name)
    if value == "passed" and not batcher.needs_tests:
        raise Misconfigured('value: "passed" needs tests, and by these options none are run; say value="reward"')
    from inspect_ai.scorer import accuracy, mean, scorer, stderr

    central = accuracy() if value == "passed" else mean()
    make = scorer(metrics=[central, stderr()], name=name)(lambda: partial(_score, batcher, value))
    return cast(Callable[..., Awaitable[Any]], make())  # made without arguments, so that no key is in the log


async def _score(batcher: RewardBatcher, value: ScoreValue, /, state: Any, target: Any) -> Any:
    from inspect_ai.scorer import Score

    if not state.output.choices:  # of a log in which the sample ended with an error
        return Score.unscored(reason="no_response", explanation="the model gave no answer")
    label, field = _label(state.metadata, target)
    completion = state.output.completion
    reward = await batcher.reward_async(TrainerRow(_messages(state.input), completion, label, field))
    log_missing([reward])
    return Score(**_fields(batcher, value, completion, reward))


def _label(metadata: Mapping[str, Any] | None, target: Any) -> tuple[Any, str]:
    """What holds the tests, and its name for messages: the metadata (HumanEval, APPS), or the target (MBPP)."""
    texts = list(target)
    wanted = texts[0] if len(texts) == 1 else texts
    if not has_tests(metadata) and has_tests(wanted):
        return wanted, "target"
    return (metadata, "metadata") if metadata else (wanted, "target")


def _messages(asked: Any) -> Any:
    """A sample's input as text or messages."""
    return asked if isinstance(asked, str) else [{"role": message.role, "content": message.text} for message in asked]


def _fields(batcher: RewardBatcher, value: ScoreValue, completion: str, reward: RowReward) -> dict[str, Any]:
    """Of Inspect's `Score`. Raises the row's error where there is no reward."""
    number = reward.value()
    code = code_of(completion, batcher.config.language) if batcher.config.extract == "last_fence" else None
    parts = {"reward": number, "pass_rate": reward.pass_rate, "rm": reward.rm}
    passed = "C" if reward.pass_rate == 1.0 else "I"
    return {
        "value": passed if value == "passed" else number,
        "answer": code.text if code else completion,
        "explanation": "no test was run" if reward.pass_rate is None else f"pass rate {reward.pass_rate:g}",
        "metadata": {name: part for name, part in parts.items() if part is not None},
    }
