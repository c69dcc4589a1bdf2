"""The contract's words about grading: verdicts in their order of severity, and the values of options."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class Verdict(StrEnum):
    """How a program fared. A program's verdict is the worst of its tests', in the order of `SEVERITY`."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    NO_RESULT = "no_result"
    INVALID_RESULT = "invalid_result"
    SECURITY_VIOLATION = "security_violation"
    NO_CODE = "no_code"
    SKIPPED = "skipped"
    UNJUDGEABLE = "unjudgeable"  # of a test, never of a program: the test asks what split grading cannot answer


# Worst first. `skipped` is never the verdict of a program that ran at least one test.
SEVERITY: tuple[Verdict, ...] = (
    Verdict.NO_CODE,
    Verdict.COMPILE_ERROR,
    Verdict.MEMORY_LIMIT,
    Verdict.OUTPUT_LIMIT,
    Verdict.TIME_LIMIT,
    Verdict.SECURITY_VIOLATION,
    Verdict.RUNTIME_ERROR,
    Verdict.NO_RESULT,
    Verdict.INVALID_RESULT,
    Verdict.WRONG_ANSWER,
    Verdict.SKIPPED,
    Verdict.UNJUDGEABLE,
    Verdict.PASSED,
)

# Verdicts that another run of the same program might change: never cached.
TIMING_VERDICTS = frozenset({Verdict.TIME_LIMIT})

Judge = Literal["split", "bytes", "shared_process", "program_methods"]
Grading = Literal["split", "together", "auto"]
MissingModules = Literal["failure", "invalid"]
Level = Literal["vm", "strong", "userns", "landlock", "none"]
Compare = Literal["exact", "rstrip", "tokens", "float", "lines"]
Position = Literal["append", "replace"]
