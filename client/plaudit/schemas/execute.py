"""`POST /execute`: programs judged by tests; and what reproduces a verdict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plaudit.grading import Grading, Judge, Level, MissingModules, Verdict
from plaudit.schemas.base import (
    MAX_ITEMS,
    Answer,
    Completeness,
    Completions,
    DeadlineMs,
    Id,
    Priority,
    ResultError,
    Status,
    Strict,
    Timing,
)
from plaudit.schemas.tests import Tests


class LimitsSpec(Strict):
    """Limits of one test's run; each at most the deployment's ceiling (`GET /info`)."""

    cpu_s: Annotated[float, Field(gt=0)] = 5.0
    wall_s: Annotated[float | None, Field(gt=0)] = None
    memory_mb: Annotated[int, Field(ge=16)] = 512
    output_kb: Annotated[int, Field(ge=1)] = 1024
    processes: Annotated[int, Field(ge=1)] = 64


class StopAfter(Strict):
    after: Annotated[int, Field(ge=1, description="stop after this many failed tests")]


class OptionsSpec(Strict):
    """How to judge, and what to do beside it. Each is part of a result's identity."""

    fresh_interpreter: Annotated[
        bool, Field(description="start a new Python for every run (`python3 main.py`), not a fork of a warm one")
    ] = False
    grading: Annotated[
        Grading,
        Field(
            description="split: tests in a process of their own; together: in the program's, which could forge its "
            "verdict; auto: split, and together what split cannot judge"
        ),
    ] = "split"
    run_main: Annotated[
        bool | None, Field(description="whether the program's `__main__` guard runs; null: only in `stdio`, `script`")
    ] = None
    control: Annotated[
        bool, Field(description="try suites of code on a program that answers nothing, and refuse those that it passes")
    ] = True
    missing_modules: Annotated[
        MissingModules,
        Field(description="of a program that imports what this deployment lacks: it fails, or is `invalid`"),
    ] = "failure"
    check_determinism: Annotated[bool, Field(description="judge twice; flag `nondeterministic` if they differ")] = False
    audit: Annotated[bool, Field(description="flags for what a Python program was seen doing: hints")] = False
    # Left out where it is None: a retry must have the body that the version before has kept under its key.
    hash_seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=2**32 - 1,
            exclude_if=lambda seed: seed is None,
            description="PYTHONHASHSEED of the program, with `fresh_interpreter`",
        ),
    ] = None


Stop = Literal["never", "first_failure"] | StopAfter
Extract = Literal["none", "last_fence"]
RewardExtract = Literal["none", "last_fence", "continuation"]


class ExecuteItem(Strict):
    id: Id | None = None
    language: Annotated[str, Field(min_length=1, max_length=64)]
    programs: Completions
    extract: Extract = "none"
    tests: Tests
    limits: LimitsSpec = LimitsSpec()
    stop: Stop = "never"
    options: OptionsSpec = OptionsSpec()


class ExecuteRequest(Strict):
    items: Annotated[list[ExecuteItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    use_cache: Annotated[bool, Field(description="false: run again what was judged before")] = True
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None


class TestResult(Answer):
    verdict: Verdict
    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    peak_memory_mb: float = 0.0
    stdout: str = ""
    stderr: str = ""
    detail: str = ""
    name: str = Field("", description="of the kinds `pytest` and `unittest`")
    vacuous: bool = Field(False, description="it passes for a program that answers nothing, too")
    score: float | None = Field(None, description="in [0, 1], where a checker gives one")

    __test__ = False


class CompileResult(Answer):
    ok: bool
    wall_ms: float
    stdout: str = ""
    stderr: str = ""


class ProgramResult(Answer):
    status: Status
    verdict: Verdict | None = None
    passed: int | None = None
    total: int | None = None
    pass_rate: float | None = None
    trainable: bool
    cached: bool = False
    judge: Judge | None = None
    isolation: Level | None = None
    toolchain: str | None = Field(default=None, description="digest of versions, flags and judge code that judged")
    compile: CompileResult | None = None
    tests: list[TestResult] = []
    flags: list[str] = []
    error: ResultError | None = None


class ExecuteResult(Answer):
    id: str | None = None
    best: int | None = Field(None, description="index of the highest pass rate; null if none")
    programs: list[ProgramResult]


class ExecuteAnswer(Answer):
    request_id: str
    status: Completeness
    results: list[ExecuteResult]
    timing: Timing


# --- GET /requests/{id}/replay ----------------------------------------------------------------------------------------


class GivenVerdict(Answer):
    """What was answered about one program, and under which content hash it was done."""

    sha256: str = Field(description="of the program's text in UTF-8, as it was run")
    job: str | None = Field(None, description="content hash of the work; null if none was needed")
    status: Status
    verdict: Verdict | None = None
    passed: int | None = None
    total: int | None = None
    tests: list[Verdict] = []
    flags: list[str] = []
    judge: Judge | None = None
    isolation: Level | None = None
    toolchain: str | None = Field(default=None, description="digest of versions, flags and judge code that judged")
    cached: bool = False


class ReplayItem(Answer):
    """`request` can be posted as an item of `/execute`; `given` has one entry per program of it, in order."""

    request: ExecuteItem
    suite: str = Field(description='digest of the tests, as `{"kind": "ref"}` takes it')
    given: list[GivenVerdict]


class ReplayAnswer(Answer):
    request_id: str
    answered_at: str
    expires_at: str
    toolchain: str = Field(
        description="digest of versions, flags and judge code that judged; where several did, "
        "what the work was admitted for, and `given` has each program's"
    )
    items: list[ReplayItem]
