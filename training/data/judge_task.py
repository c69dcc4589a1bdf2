"""One program under its tests, as sandboxes and services judge it."""

from __future__ import annotations

from dataclasses import dataclass

from training.pipeline.digests import content_key
from training.pipeline.records import Problem, ProgramRecord, TestKind

MUTANT_CPU_S = 0.5  # CPU seconds of one test of a mutant; its original needs milliseconds


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """One program to judge; `key` names its text, its tests and its limits."""

    key: str
    program_id: str
    solution: str
    setup: str
    tests: tuple[str, ...]
    entry_point: str
    cpu_s: float
    language: str = "python"
    kind: TestKind = "assert"
    hash_seed: int | None = None


def task_of(problem: Problem, program: ProgramRecord, cpu_s: float, tests: tuple[str, ...] | None = None) -> JudgeTask:
    """This program under its problem's own tests, or under these."""
    tests = problem.tests if tests is None else tests
    parts: list[object] = [program.solution, problem.test_setup, tests, problem.entry_point, cpu_s]
    if (problem.language, problem.kind) != ("python", "assert"):
        parts += [problem.language, problem.kind]
    return JudgeTask(
        key=content_key(*parts),
        program_id=program.program_id,
        solution=program.solution,
        setup=problem.test_setup,
        tests=tests,
        entry_point=problem.entry_point,
        cpu_s=cpu_s,
        language=problem.language,
        kind=problem.kind,
    )
