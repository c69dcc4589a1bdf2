"""`POST /audit`: what a test suite is worth, before anything is trained on its verdicts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plaudit.schemas.base import MAX_ITEMS, Answer, Completeness, DeadlineMs, Id, Priority, Strict, Text, Timing
from plaudit.schemas.execute import LimitsSpec
from plaudit.schemas.tests import InlineTests

MAX_PROGRAMS = 512  # of one item, with labels
MAX_MUTANTS = 256
MAX_HASH_SEEDS = 16


class LabelledProgram(Strict):
    """A program of which is known whether it is right."""

    source: Text
    right: Annotated[bool, Field(description="whether the suite should accept it")]


class AuditItem(Strict):
    """A suite, and what is known of its problem. The more is given, the more is measured."""

    id: Id | None = None
    language: Annotated[str, Field(min_length=1, max_length=64)] = "python"
    tests: InlineTests
    reference: Annotated[Text | None, Field(description="a program that is right")] = None
    prompt: Annotated[Text, Field(description="its examples are what a program can learn by heart")] = ""
    programs: Annotated[list[LabelledProgram], Field(max_length=MAX_PROGRAMS, fail_fast=True)] = []
    visible: Annotated[
        int, Field(ge=0, description="tests, from the first, that count as visible where the prompt shows no example")
    ] = 1
    mutants: Annotated[int, Field(ge=0, le=MAX_MUTANTS, description="of a Python reference, at most")] = 24
    hash_seeds: Annotated[int, Field(ge=0, le=MAX_HASH_SEEDS, description="runs of the reference, a seed each")] = 3
    budget_cpu_s: Annotated[float, Field(gt=0, le=3600, description="no mutant is begun once this is spent")] = 60.0
    seed: Annotated[int, Field(ge=0, le=2**53, description="of the choice of mutants")] = 0
    limits: LimitsSpec = LimitsSpec()


class AuditRequest(Strict):
    items: Annotated[list[AuditItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    use_cache: Annotated[bool, Field(description="false: run again what was judged before")] = True
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None


class AuditedTest(Answer):
    """One test of the suite. What could not be measured is null."""

    name: str = Field(description="the test's text or name, shortened")
    vacuous: bool = Field(default=False, description="it passes for a program that answers nothing")
    duplicate_of: int | None = Field(default=None, description="index of the equal test before it")
    flaky: bool | None = Field(default=None, description="its verdict on the reference varies with the hash seed")
    reference_passes: bool | None = None
    kills: int | None = Field(default=None, description="mutants that fail it")
    kills_alone: int | None = Field(default=None, description="mutants that fail it and no other test")
    cpu_ms: float | None = Field(default=None, description="of the reference")


class Survivor(Answer):
    """A mutant that passes the whole suite: a gap of the suite, or a program equivalent to the reference."""

    diff: str


class AuditRate(Answer):
    """A share with its 95 % interval (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""

    count: int
    total: int
    rate: float
    low: float
    high: float


SuiteVerdict = Literal["good", "weak", "broken", "unknown"]


class AuditReport(Answer):
    id: str | None = None
    kind: str
    verdict: SuiteVerdict = Field(description="unknown: nothing was given, or could be run, by which to tell")
    problems: list[str] = Field(description="plain sentences, the gravest first")
    unmeasured: list[str] = Field(description="what was not measured, and why")
    tests: list[AuditedTest]
    reference_passes: bool | None = None
    mutation_score: AuditRate | None = Field(default=None, description="mutants that fail a test")
    survivors: list[Survivor] = []
    false_accepts: AuditRate | None = Field(default=None, description="of the wrong programs, those that pass")
    false_rejects: AuditRate | None = Field(default=None, description="of the right programs, those that fail")
    false_accepted: list[int] = Field(default=[], description="indices in `programs`")
    false_rejected: list[int] = Field(default=[], description="indices in `programs`")
    hackable: bool | None = Field(default=None, description="a program that knows only the visible examples passes")
    hack: str | None = Field(default=None, description="that program")
    cpu_ms: float | None = Field(default=None, description="of the reference, all tests")
    spent_cpu_ms: float = Field(description="of all runs of this audit")
    server_errors: int = Field(
        default=0, description="runs without a verdict for the service's reasons, a deadline too: audit again"
    )


class AuditAnswer(Answer):
    request_id: str
    status: Completeness
    results: list[AuditReport]
    timing: Timing
