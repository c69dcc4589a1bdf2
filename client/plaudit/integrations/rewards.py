"""Reward functions for trainers, on top of the client library. None of the trainers is imported here.

Each function below makes what one trainer asks for out of a service's URL; `docs/trainers/` has the lines to paste.
They differ in what they do when there is no reward, because trainers differ in what they take for a number:

  trl         `None` for the rows concerned: masked, their advantage is 0
  verl        raises, which ends the step; a number under `fallback` goes out beside `reward_ok` 0
  openrlhf    the same; OpenRLHF cannot go on without a number, so set `fallback` for long runs
  slime       raises, which fails the rollout; with `fallback` the sample is also taken out of the loss
  areal       raises below the 15 s after which AReaL would say 0 by itself, so that AReaL tries again
  skyrl       raises out of `step`
  verifiers   raises; for the older `Rubric`, which turns every exception into 0, NaN and `state["error"]`

Everywhere: no number of ours is ever made up. What the caller configured wrongly is raised at once, with or without a
`fallback`: an option that does not exist, a value out of its range, a row whose tests cannot be read. All options of
`plaudit.integrations.batcher.Rater` are taken: `reward`, `spec`, `language`, `extract`, `limits`, `timeout_s`, …

The default reward is by the tests first, and the reward model, where there is one, breaks ties: 1.0 and a little for a
program that passes everything, less than 1.0 for every other one. `reward="tests"` is the pass rate and nothing else,
`reward="model"` the model's raw score.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from plaudit.errors import PlauditError
from plaudit.integrations.batcher import Misconfigured, Options, Rater, Rating, Row, has_tests, text_of
from plaudit.options import refuse_unknown

log = logging.getLogger("plaudit.rewards")

Numbers = dict[str, float]
AREAL_S = 13.0  # AReaL gives a try 15 s, and after four of them says 0
LONG_S = 600.0  # trainers that end when no reward comes are held for this long


# --- TRL (GRPO, RLOO, AsyncGRPO) -------------------------------------------------------------------------------------


def trl(
    url: str, api_key: str | None = None, *, column: str = "tests", name: str = "plaudit", **options: Unpack[Options]
) -> Callable[..., list[float | None]]:
    """`reward_funcs=[trl(URL)]`: one request a batch, the tests from the data set's `column`."""
    function = partial(_trl, _rater("trl", url, api_key, options, column=column, name=name), column)
    function.__name__ = name  # type: ignore[attr-defined]  # what TRL logs it under
    return function


def _trl(
    rater: Rater, column: str, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
) -> list[float | None]:
    labels = columns[column] if column in columns else [None] * len(completions)
    if column not in columns and rater.needs_tests:
        raise Misconfigured(
            f"{column}: the data set has no such column, which is to hold the tests; there are "
            f"{', '.join(sorted(columns)) or 'none'}"
        )
    rows = [Row(*row, column) for row in zip(prompts, map(_said, completions), labels, strict=True)]
    ratings = rater.rate(rows)
    _heard(ratings)
    if callable(extra := columns.get("log_extra")):
        extra("pass_rate", [rating.pass_rate for rating in ratings])
    if callable(metric := columns.get("log_metric")):
        metric("plaudit/reward_ok", sum(rating.reward is not None for rating in ratings) / max(1, len(ratings)))
    return [rating.reward for rating in ratings]


# --- verl ------------------------------------------------------------------------------------------------------------


def verl(
    url: str, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[Options]
) -> Callable[..., Awaitable[Numbers]]:
    """`compute_score = verl(URL)` for `reward.custom_reward_function`: awaited; samples in flight share requests."""
    options.setdefault("timeout_s", LONG_S)
    return partial(_verl, _rater("verl", url, api_key, options, fallback=fallback), fallback)


async def _verl(
    rater: Rater,
    fallback: float | None,
    /,
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    **_: Any,
) -> Numbers:
    rating = await rater.rate_one_async(_verl_row(solution_str, ground_truth, extra_info))
    _heard([rating])
    return rating.numbers(fallback)


def verl_blocking(
    url: str, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[Options]
) -> Callable[..., Numbers]:
    """The same for managers that call plain functions (`remote`, the legacy `naive`, `prime` and `dapo`)."""
    options.setdefault("timeout_s", LONG_S)
    return partial(_verl_blocking, _rater("verl_blocking", url, api_key, options, fallback=fallback), fallback)


def _verl_blocking(
    rater: Rater,
    fallback: float | None,
    /,
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    **_: Any,
) -> Numbers:
    rating = rater.rate_one(_verl_row(solution_str, ground_truth, extra_info))
    _heard([rating])
    return rating.numbers(fallback)


def verl_batch(
    url: str, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[Options]
) -> Callable[..., list[Numbers]]:
    """The same for the `batch` manager: one request for the whole batch."""
    options.setdefault("timeout_s", LONG_S)
    return partial(_verl_batch, _rater("verl_batch", url, api_key, options, fallback=fallback), fallback)


def _verl_batch(
    rater: Rater,
    fallback: float | None,
    /,
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Any] | None = None,
    **_: Any,
) -> list[Numbers]:
    infos = extra_infos if extra_infos is not None else [None] * len(solution_strs)
    ratings = rater.rate([_verl_row(*row) for row in zip(solution_strs, ground_truths, infos, strict=True)])
    _heard(ratings)
    return [rating.numbers(fallback) for rating in ratings]


def _verl_row(solution: str, truth: Any, info: Any) -> Row:
    """verl hands the prompt over only where the data set has it in `extra_info`."""
    prompt = info.get("prompt") or info.get("question") if isinstance(info, Mapping) else None
    return Row(_turns(prompt), solution, truth, "ground_truth")


# --- OpenRLHF --------------------------------------------------------------------------------------------------------


def openrlhf(
    url: str, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[Options]
) -> Callable[..., dict[str, Any]]:
    """`reward_func = openrlhf(URL)` in the file that `--reward.remote_url` names: `(queries, prompts, labels)`."""
    options.setdefault("timeout_s", LONG_S)
    return partial(_openrlhf, _rater("openrlhf", url, api_key, options, fallback=fallback), fallback)


def _openrlhf(
    rater: Rater,
    fallback: float | None,
    /,
    queries: Sequence[str],
    prompts: Sequence[Any],
    labels: Sequence[Any],
    **_: Any,
) -> dict[str, Any]:
    rows = [
        Row(prompt, query.removeprefix(prompt) if isinstance(prompt, str) else query, label, "labels")
        for query, prompt, label in zip(queries, prompts, labels, strict=True)
    ]
    ratings = [rater.rate_one(rows[0])] if len(rows) == 1 else rater.rate(rows)
    _heard(ratings)
    numbers = [rating.numbers(fallback) for rating in ratings]
    columns = {name: [row[name] for row in numbers] for name in ("reward_ok", "pass_rate", "rm")} if numbers else {}
    scores = [row["score"] for row in numbers]
    return {"rewards": scores, "scores": scores, "extra_logs": columns}


def openrlhf_step(
    url: str, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[Options]
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """`step` of an agent (`--train.agent_func_path`): one turn, then the reward."""
    options.setdefault("timeout_s", LONG_S)
    return partial(_openrlhf_step, _rater("openrlhf_step", url, api_key, options, fallback=fallback), fallback)


async def _openrlhf_step(rater: Rater, fallback: float | None, states: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    row = Row(states["observation_text"], states["action_text"], states["label"])
    rating = await rater.rate_one_async(row)
    _heard([rating])
    numbers = rating.numbers(fallback)
    score = numbers.pop("score")
    return {
        "rewards": score,
        "scores": score,
        "environment_feedback": "",
        "done": True,
        "extra_logs": numbers,
        "sampling_params": states.get("sampling_params"),
    }


# --- slime and miles -------------------------------------------------------------------------------------------------


def slime(
    url: str, api_key: str | None = None, *, fallback: float | None = None, **options: Unpack[Options]
) -> Callable[..., Awaitable[Any]]:
    """`custom_rm = slime(URL)` for `--custom-rm-path`: a sample or, under `--group-rm`, a list of them."""
    options.setdefault("timeout_s", LONG_S)
    return partial(_slime, _rater("slime", url, api_key, options, fallback=fallback), fallback)


async def _slime(rater: Rater, fallback: float | None, args: Any, sample: Any, **_: Any) -> Any:
    samples = sample if isinstance(sample, list) else [sample]
    rows = [Row(one.prompt, one.response, one.label) for one in samples]
    ratings = [await rater.rate_one_async(rows[0])] if len(rows) == 1 else await rater.rate_async(rows)
    _heard(ratings)
    numbers = [rating.numbers(fallback) for rating in ratings]
    for one, rating in zip(samples, ratings, strict=True):
        if rating.reward is None:
            one.remove_sample = True
    rewards: list[Any] = numbers if getattr(args, "reward_key", None) else [row["score"] for row in numbers]
    return rewards if isinstance(sample, list) else rewards[0]


# --- AReaL -----------------------------------------------------------------------------------------------------------


def areal(
    url: str, api_key: str | None = None, *, column: str = "tests", **options: Unpack[Options]
) -> Callable[..., float]:
    """`reward_fn = areal(URL)`: plain, picklable, and done before AReaL's own clock is."""
    options.setdefault("timeout_s", AREAL_S)
    return partial(_areal, _rater("areal", url, api_key, options, column=column), column)


def _areal(
    rater: Rater,
    column: str,
    /,
    prompt: Any,
    completions: str,
    prompt_ids: Any = None,
    completion_ids: Any = None,
    **row: Any,
) -> float:
    return rater.rate_one(Row(prompt, completions, row.get(column), column)).value()


# --- SkyRL-gym -------------------------------------------------------------------------------------------------------


def skyrl(url: str, api_key: str | None = None, **options: Unpack[Options]) -> type[Any]:
    """A class to inherit from beside `BaseTextEnv`: one turn, then the reward by `extras["reward_spec"]`."""
    options.setdefault("timeout_s", LONG_S)
    rater = _rater("skyrl", url, api_key, options)

    class Episode:
        """One turn of a model, judged."""

        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            self.label = ((extras or {}).get("reward_spec") or {}).get("ground_truth")
            self.prompt: Any = (extras or {}).get("prompt") or ""
            self.judged: dict[str, Any] = {}

        def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
            self.prompt = prompt
            return prompt, {}

        def step(self, action: str) -> dict[str, Any]:
            rating = rater.rate_one(Row(_turns(self.prompt), action, self.label, "reward_spec.ground_truth"))
            self.judged = rating.numbers()
            return {"observations": [], "reward": rating.value(), "done": True, "metadata": dict(self.judged)}

        def get_metrics(self) -> dict[str, Any]:
            return dict(self.judged)

    return Episode


# --- verifiers -------------------------------------------------------------------------------------------------------


def verifiers(
    url: str, api_key: str | None = None, *, name: str = "plaudit", **options: Unpack[Options]
) -> Callable[..., Awaitable[float]]:
    """For `Rubric(funcs=[…])`, or to be awaited in a task's `@vf.reward`; the tests out of `info`, else `answer`."""
    options.setdefault("timeout_s", LONG_S)
    function = partial(_verifiers, _rater("verifiers", url, api_key, options, name=name))
    function.__name__ = name  # type: ignore[attr-defined]
    return function


async def _verifiers(
    rater: Rater, /, prompt: Any, completion: Any, answer: Any = None, info: Any = None, state: Any = None, **_: Any
) -> float:
    try:
        label, field = (answer, "answer") if not has_tests(info) and has_tests(answer) else (info or answer, "info")
        rating = await rater.rate_one_async(Row(_turns(prompt), _said(completion), label, field))
        _heard([rating])
        return rating.value()
    except PlauditError as error:
        if state is None:
            raise
        state["error"] = error  # an exception would be 0 there
        return math.nan


# --- shared ----------------------------------------------------------------------------------------------------------


def _rater(function: str, url: str, api_key: str | None, options: Mapping[str, Any], **own: Any) -> Rater:
    """A Rater with these options; `own` are those that the function itself has. Raises for what cannot be."""
    refuse_unknown(options, Options.__annotations__.keys() | own.keys(), function)
    for name, value in own.items():
        if name in ("column", "name") and not (isinstance(value, str) and value):
            raise Misconfigured(f"{name}: {value!r} is not a name")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name == "fallback" and value is not None and not number:
            raise Misconfigured(f"fallback: {value!r} is not a number")
    return Rater(url, api_key, **options)


def _said(completion: Any) -> str:
    """A completion's text: itself, or what the last assistant among its messages says."""
    if isinstance(completion, str):
        return completion
    turns = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
    return text_of(turns[-1]) if turns else ""


def _turns(prompt: Any) -> Any:
    """Messages as a list, whatever array type a data frame made of them."""
    return prompt if prompt is None or isinstance(prompt, str | list) else list(prompt)


def _heard(ratings: Sequence[Rating]) -> None:
    """Say once a call how many rows have no reward, and why."""
    without = [rating for rating in ratings if rating.reward is None]
    if without:
        log.warning(
            "%d of %d rows without a reward: %s",
            len(without),
            len(ratings),
            "; ".join(sorted({str(rating.why) for rating in without}))[:1000],
        )
