"""The options of reward functions, checked where they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict, get_args

from pydantic import TypeAdapter, ValidationError

from plaudit.errors import Invalid
from plaudit.options import known_language, nearest, refuse_unknown
from plaudit.schemas import (
    BY_TESTS_FIRST,
    ExecuteTerm,
    LimitsSpec,
    Priority,
    RewardExtract,
    RewardSpec,
    ScoreTerm,
    Stop,
)

RewardMode = Literal["auto", "tests", "model"]
BY_TESTS = RewardSpec(terms=[ExecuteTerm(name="tests", type="execute")])
BY_MODEL = RewardSpec(terms=[ScoreTerm(name="rm", type="score", on_overflow="truncate_left")])


class Misconfigured(Invalid, ValueError):
    """A wrong option, or a row whose tests cannot be read. No retry and no fallback mends it."""


class BatcherOptions(TypedDict, total=False):
    """How rows are rewarded.

    reward: without `spec`, what decides:
        auto   the default: the tests in the label first; the reward model, where there is one, breaks ties
        tests  the tests alone: the pass rate and nothing else
        model  the reward model's raw score, whatever the label holds
    spec: terms of the reward in full, as `/reward` takes them; excludes `reward`.
    language: of the programs, where the label does not say it.
    extract: how the program is taken out of a completion: "last_fence" (default) or "none".
    limits, stop: of one test's run, and when to stop running tests.
    priority: "high", "normal" or "low".
    timeout_s: budget of one call in seconds, over all its attempts.
    gather_s: how long single rows wait for others to share a request with, in seconds.
    max_connections: connections that are open at most.
    """

    reward: RewardMode
    spec: RewardSpec | Mapping[str, Any] | None
    language: str
    extract: RewardExtract
    limits: LimitsSpec | Mapping[str, Any]
    stop: Stop
    priority: Priority
    timeout_s: float
    gather_s: float
    max_connections: int


_DEFAULTS: BatcherOptions = {
    "reward": "auto",
    "spec": None,
    "language": "python",
    "extract": "last_fence",
    "limits": {},
    "stop": "never",
    "priority": "normal",
    "timeout_s": 120.0,
    "gather_s": 0.01,
    "max_connections": 64,
}


@dataclass(frozen=True, slots=True)
class BatcherConfig:
    """`BatcherOptions`, checked and complete. `spec` None: the service's own default, by tests first."""

    spec: RewardSpec | None
    limits: LimitsSpec
    language: str
    extract: RewardExtract
    stop: Stop
    priority: Priority
    timeout_s: float
    gather_s: float
    max_connections: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Raises TypeError for an option that does not exist, Misconfigured for a wrong value."""
        refuse_unknown(options, BatcherOptions.__annotations__, "RewardBatcher")
        chosen: Any = {**_DEFAULTS, **options}
        connections = chosen["max_connections"]
        if type(connections) is not int or connections < 1:
            raise Misconfigured(f"max_connections: {connections!r} is not a whole number from 1")
        return cls(
            spec=_spec(chosen["spec"], chosen["reward"]),
            limits=_valid("limits", TypeAdapter(LimitsSpec), chosen["limits"]),
            language=language_of("language", chosen["language"]),
            extract=_one_of("extract", chosen["extract"], get_args(RewardExtract)),
            stop=_valid("stop", TypeAdapter(Stop), chosen["stop"]),
            priority=_one_of("priority", chosen["priority"], get_args(Priority)),
            timeout_s=_seconds("timeout_s", chosen["timeout_s"]),
            gather_s=_seconds("gather_s", chosen["gather_s"], least=0.0),
            max_connections=connections,
        )

    @property
    def effective_spec(self) -> RewardSpec:
        """What rows are rewarded by, the service's default included."""
        return self.spec or BY_TESTS_FIRST


def language_of(field: str, language: Any) -> str:
    """The language as it was written. Raises Misconfigured, naming the field, for one that does not exist."""
    try:
        return known_language(language)
    except ValueError as error:
        raise Misconfigured(f"{field}: {error}") from None


def _spec(spec: Any, reward: Any) -> RewardSpec | None:
    """The spec that the service gets; None: its own default, by tests first."""
    _one_of("reward", reward, get_args(RewardMode))
    if spec is None:
        return {"auto": None, "tests": BY_TESTS, "model": BY_MODEL}[reward]
    if reward != "auto":
        raise Misconfigured(f"reward: {reward!r} and a spec exclude each other; give one of them")
    return _valid("spec", TypeAdapter(RewardSpec), spec)  # type: ignore[no-any-return]


def _valid(name: str, kind: TypeAdapter[Any], value: Any) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (name, *first["loc"])))
        hint = ""
        if first["type"] == "extra_forbidden" and name == "limits":
            hint = f"; {nearest(str(first['loc'][-1]), set(LimitsSpec.model_fields))}"
        raise Misconfigured(f"{place}: {first['msg'].removeprefix('Value error, ')}{hint}") from None


def _one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    if value not in known:
        raise Misconfigured(f"{name}: {value!r}; there are {', '.join(known)}")
    return value


def _seconds(name: str, value: Any, least: float | None = None) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (least is None and value == 0):
        raise Misconfigured(f"{name}: {value!r} is not a number of seconds{'' if least is not None else ' above 0'}")
    return float(value)
