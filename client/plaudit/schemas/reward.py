"""`POST /reward` and `/rank`: terms, how they become a reward, and groups."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from plaudit.grading import Verdict
from plaudit.schemas.base import (
    MAX_ITEMS,
    Answer,
    Completeness,
    Completions,
    DeadlineMs,
    Id,
    ModelRef,
    Priority,
    ResultError,
    Status,
    Strict,
    Text,
    Timing,
)
from plaudit.schemas.conversation import PromptedItem
from plaudit.schemas.execute import LimitsSpec, RewardExtract, Stop
from plaudit.schemas.tests import Tests

# Large enough for any reward, small enough that sums and deviations of rewards stay finite.
Amount = Annotated[float, Field(ge=-1e9, le=1e9)]


class TermBase(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    weight: Amount = 1.0


class ExecuteTerm(TermBase):
    type: Literal["execute"]
    policy: Annotated[
        Literal["pass_rate", "all_or_nothing", "plus_minus_one"],
        Field(description="the value: the pass rate; 1 for every test and else 0; 1 for every test and else -1"),
    ] = "pass_rate"


class ScoreTerm(TermBase):
    type: Literal["score"]
    model: Id = "default"
    transform: Literal["none", "sigmoid", "zscore_in_group"] = "none"
    on_overflow: Literal["error", "truncate_left"] = "error"


class FormatTerm(TermBase):
    type: Literal["format"]
    require: Literal["code_fence", "single_code_fence", "non_empty"] = "code_fence"


class ConsensusTerm(TermBase):
    type: Literal["consensus"]


class AgreementTerm(TermBase):
    type: Literal["agreement"]


class ExamplesTerm(TermBase):
    """Share of the prompt's own examples that a completion passes."""

    type: Literal["examples"]


class BehaviorTerm(TermBase):
    """How much of the group agrees with what a completion answers to inputs made from the prompt."""

    type: Literal["behavior"]
    inputs: Annotated[int, Field(ge=1, le=200, description="how many inputs are made")] = 64
    budget_cpu_s: Annotated[
        float | None,
        Field(
            gt=0,
            le=120,
            description="CPU-seconds that the group has for the examples and all inputs, an equal share of it for each "
            "different program, 0.02 at least; without it 1.5 for 32 programs or fewer, and as much again for 32 more",
        ),
    ] = None


EvidenceTerm = ExamplesTerm | BehaviorTerm

Term = Annotated[
    ExecuteTerm | ScoreTerm | FormatTerm | ConsensusTerm | AgreementTerm | ExamplesTerm | BehaviorTerm,
    Field(discriminator="type"),
]


class Gate(Strict):
    term: Text
    min: float


class Clip(Strict):
    min: Amount
    max: Amount

    @model_validator(mode="after")
    def _ordered(self) -> Clip:
        if self.min > self.max:
            raise ValueError("clip.min is greater than clip.max")
        return self


MIN_TESTS_WEIGHT = 1e-6  # of the tests under `tests_first`: smaller ones leave no room for the steps between rates


_AUTO_TERMS: list[dict[str, str]] = [
    {"name": "examples", "type": "examples"},
    {"name": "behavior", "type": "behavior"},
    {"name": "consensus", "type": "consensus"},
    {"name": "rm", "type": "score"},
]


class RewardSpec(Strict):
    """How terms become a reward. `tests_first`: by pass rate, the other terms break ties (docs/api.md has the formula).
    `gated`: the weighted sum where the gate term's value reaches `min`, else 0. `auto`: the terms in their order, each
    among those that the ones before find equal.

    Without `terms` it is `tests_first` by the tests, and the model breaks ties; `auto` without `terms` is what `/rank`
    does without a spec.
    """

    terms: Annotated[list[Term], Field(min_length=1, max_length=16, fail_fast=True)] = [
        ExecuteTerm(name="tests", type="execute"),
        ScoreTerm(name="rm", type="score"),
    ]
    combine: Annotated[
        Literal["weighted_sum", "gated", "tests_first", "auto"],
        Field(description="with terms of your own `weighted_sum` unless said otherwise; without, `tests_first`"),
    ] = "weighted_sum"
    gate: Gate | None = None
    clip: Clip | None = None
    on_missing: Annotated[
        Literal["null", "drop"],
        Field(
            description="a term without a value: null makes the reward null; drop takes it from the sum and says so; "
            "under `tests_first` a tie-breaker without a value adds 0, and the tests are always needed; under `auto` "
            "a term that the group has no evidence for is passed over"
        ),
    ] = "null"

    @model_validator(mode="before")
    @classmethod
    def _tests_first_by_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and not {"terms", "combine"} & given.keys():
            return {**given, "combine": "tests_first"}
        if isinstance(given, dict) and given.get("combine") == "auto" and "terms" not in given:
            return {**given, "terms": _AUTO_TERMS}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> RewardSpec:
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError("two terms have the same name")
        if (self.combine == "gated") != (self.gate is not None):
            raise ValueError("combine 'gated' and a gate go together")
        if self.gate is not None and self.gate.term not in names:
            raise ValueError(f"gate.term {self.gate.term!r} is not a term; there are {', '.join(names)}")
        if self.combine != "tests_first" and "terms" not in self.model_fields_set:
            raise ValueError(f"terms are missing: combine {self.combine!r} has none of its own")
        if sum(isinstance(term, BehaviorTerm) for term in self.terms) > 1:
            raise ValueError("one behavior term at most: a program is observed once")
        if self.combine == "auto":
            weighted = [term.name for term in self.terms if term.weight != 1.0]
            if weighted:
                raise ValueError(
                    f"term {weighted[0]!r}: combine 'auto' goes by the order of the terms; leave out weight"
                )
        if self.combine == "tests_first":
            executing = [term for term in self.terms if isinstance(term, ExecuteTerm)]
            if len(executing) != 1:
                raise ValueError(f"combine 'tests_first' takes one execute term, and there are {len(executing)}")
            if executing[0].policy == "plus_minus_one":
                raise ValueError(
                    f"term {executing[0].name!r}: policy 'plus_minus_one' goes with combine 'weighted_sum' or 'gated'; "
                    "combine 'tests_first' takes 'pass_rate' or 'all_or_nothing'"
                )
            if executing[0].weight < MIN_TESTS_WEIGHT:
                raise ValueError(
                    f"term {executing[0].name!r}: its weight under combine 'tests_first' is at least "
                    f"{MIN_TESTS_WEIGHT:g}, not {executing[0].weight:g}"
                )
        return self

    @property
    def executes(self) -> bool:
        """Whether a term needs tests."""
        return any(isinstance(term, ExecuteTerm | AgreementTerm) for term in self.terms)

    @property
    def scores(self) -> bool:
        """Whether a term asks a reward model."""
        return any(isinstance(term, ScoreTerm) for term in self.terms)

    @property
    def observes(self) -> bool:
        """Whether a term needs what the programs answer to the prompt's examples, or to inputs made from them."""
        return any(isinstance(term, EvidenceTerm) for term in self.terms)


BY_TESTS_FIRST = RewardSpec()
BY_MODEL = RewardSpec(terms=[ScoreTerm(name="rm", type="score")])
BY_EVIDENCE = RewardSpec.model_validate({"combine": "auto"})


class RewardItem(PromptedItem):
    """One prompt with its completions; `language` and `tests` where a term executes."""

    completions: Completions
    language: Annotated[str, Field(min_length=1, max_length=64)] = "python"
    tests: Tests | None = None
    extract: Annotated[
        RewardExtract, Field(description="continuation: the program is the prompt, which is a text, and the completion")
    ] = "none"
    limits: LimitsSpec = LimitsSpec()
    stop: Stop = "never"

    @model_validator(mode="after")
    def _continuable(self) -> RewardItem:
        if self.extract == "continuation" and not isinstance(self.prompt, str):
            raise ValueError("extract 'continuation' takes a prompt that is a text, not messages")
        return self

    @model_validator(mode="after")
    def _has_a_prompt(self) -> RewardItem:
        if "prompt" not in self.model_fields_set:
            raise ValueError("prompt (or messages): missing")
        return self


class RewardRequest(Strict):
    spec: Annotated[
        RewardSpec | None,
        Field(description="without: by tests first, the model breaks ties; an item without tests by the model"),
    ] = None
    items: Annotated[list[RewardItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None

    @model_validator(mode="after")
    def _tests_where_executed(self) -> RewardRequest:
        if self.spec is None or not self.spec.executes:
            return self
        executing = [term.name for term in self.spec.terms if isinstance(term, ExecuteTerm | AgreementTerm)]
        for index, item in enumerate(self.items):
            if item.tests is None:
                raise ValueError(f"items.{index}.tests is missing and term {executing[0]!r} needs it")
        return self

    def spec_of(self, index: int) -> RewardSpec:
        """What an item is rewarded by: the request's spec, or by what the item has."""
        if self.spec is None:
            return self.default_spec if self.items[index].tests is None else BY_TESTS_FIRST
        is_auto = self.spec == BY_EVIDENCE
        return BY_TESTS_FIRST if is_auto and self.items[index].tests is not None else self.spec

    @property
    def default_spec(self) -> RewardSpec:
        """What an item without tests is rewarded by where the request has no spec."""
        return BY_MODEL


class RankRequest(RewardRequest):
    spec: Annotated[
        RewardSpec | None,
        Field(
            description="without it `auto`: given tests first and the model breaks ties; an item without tests by the "
            "prompt's examples, then behavior, then consensus, then the model"
        ),
    ] = None
    early_stop: bool = Field(False, description="stop executing a group once a completion passes everything")

    @property
    def default_spec(self) -> RewardSpec:
        return BY_EVIDENCE


class Component(Answer):
    status: Status
    value: float | None = None
    contribution: float | None = None
    verdict: Verdict | None = None
    decided: Annotated[bool, Field(description="this term set the group's best apart from its second")] = False
    error: ResultError | None = None


class CompletionReward(Answer):
    status: Status
    reward: float | None = None
    trainable: bool
    components: dict[str, Component]


class GroupStatistics(Answer):
    n: int
    n_ok: int
    mean: float | None = None
    std: float | None = Field(None, description="population standard deviation of the group's rewards")
    degenerate: bool = Field(description="no spread to learn from: fewer than two rewards, or all the same")
    best: int | None = None
    margin: Annotated[
        float | None,
        Field(
            description="best reward less the second best; null if fewer. By a prompt's evidence under `auto` how sure "
            "the best is, in [0, 1]: its share of the examples times the share of the group that answers alike"
        ),
    ] = None


class PromptExample(Answer):
    style: str = Field(description="the form it is written in, such as doctest, equality, leetcode, sample")
    start: int = Field(
        description="its first character in the prompt; of messages, all but the assistant's and tools' joined by "
        "blank lines"
    )
    end: int
    text: str = Field(description="the prompt's text there, 400 characters at most")
    test: str = Field(description="what it was read as, 400 characters at most")
    passed: int = Field(description="how many completions pass it")
    dropped: Annotated[
        bool, Field(description="not counted: no completion passes it, and most agree on another answer")
    ] = False


class Evidence(Answer):
    """What the prompt itself told about a group."""

    entry_point: str | None = Field(None, description="the function that was called; null for programs on stdin")
    examples: list[PromptExample] = []
    inputs: int = Field(0, description="how many more inputs the programs were observed on")
    cpu_s: float = Field(
        0.0, description="CPU-seconds that observing the group cost when it ran: programs, compilers, jails, the judge"
    )
    settled: bool = Field(False, description="nothing left to observe could change which completion is best")
    cut_short: int = Field(0, description="different programs that have not answered everything for lack of budget")


class RewardResult(Answer):
    id: str | None = None
    evidence: Evidence | None = Field(None, description="where a term `examples` or `behavior` asked for it")
    completions: list[CompletionReward]
    group: GroupStatistics


class RewardAnswer(Answer):
    request_id: str
    status: Completeness
    models: list[ModelRef] = []
    results: list[RewardResult]
    timing: Timing


class RankResult(RewardResult):
    order: list[int] = Field(description="indices, best first; those without a reward last")


class RankAnswer(Answer):
    request_id: str
    status: Completeness
    models: list[ModelRef] = []
    results: list[RankResult]
    timing: Timing
