"""The audit of one suite as steps: items of `/execute` out, their results in, and at the end the report.

- A service carries the steps out by jobs, a training command by a sandbox of its own.
- First the reference, the control programs and the given programs; then, where the reference passes, its mutants, some
  at a time, until all are judged or the budget is spent. The budget is overspent by one batch of mutants at most.
- A mutant has less CPU time than the reference's limit: what needs so much more than the reference is an endless loop.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence

from plaudit.languages import UnsupportedLanguage, base, resolve
from plaudit.schemas import AuditItem, AuditReport, ExecuteItem, ExecuteResult, OptionsSpec, ProgramResult
from service.audit.control_programs import silent_program, special_casing_program
from service.audit.mutants import mutants_of
from service.audit.report import report_of
from service.audit.runs import AuditRuns

BATCH = 8  # mutants between two looks at the budget
MIN_MUTANT_CPU_S = 0.5
MUTANT_TIMES_REFERENCE = 10.0

AuditSteps = Generator[list[ExecuteItem], list[ExecuteResult], AuditReport]


def audit_steps(item: AuditItem) -> AuditSteps:
    """Audit a suite. Yields batches of items to execute, and takes their results in the same order.

    Returns:
        The report. Nothing that a suite or a program does raises.
    """
    python = is_python(item.language)
    runs = AuditRuns()
    runs.hack = special_casing_program(item.tests, item.prompt, item.visible) if python else None
    programs = {
        "silent": [silent_program(item.tests)] if python else [],
        "reference": [] if item.reference is None else [item.reference],
        "hacked": [] if runs.hack is None else [runs.hack],
        "given": [program.source for program in item.programs],
    }
    flat = [program for group in programs.values() for program in group]
    plan = [_execute_item(item, flat)] if flat else []
    if item.reference is not None and item.hash_seeds:
        plan += [_execute_item(item, [item.reference], options) for options in _repeats(item, python)]
    results = yield plan
    judged = iter(results[0].programs if flat else ())
    groups = {name: [next(judged) for _ in group] for name, group in programs.items()}
    for name in ("silent", "reference", "hacked"):
        setattr(runs, name, groups[name][0] if groups[name] else None)
    runs.given = groups["given"]
    runs.seeded = [result.programs[0] for result in results[1:]]
    if python and item.reference is not None and runs.reference is not None and runs.reference.verdict == "passed":
        yield from _mutant_steps(item, item.reference, runs.reference, runs)
    return report_of(item, runs, python=python)


def is_python(language: str) -> bool:
    """Whether mutants and control programs can be made for this language."""
    try:
        return base(resolve(language)) == "python"
    except UnsupportedLanguage:
        return False


def _mutant_steps(
    item: AuditItem, source: str, reference: ProgramResult, runs: AuditRuns
) -> Generator[list[ExecuteItem], list[ExecuteResult], None]:
    texts = mutants_of(source, item.mutants, random.Random(item.seed))
    runs.printed, mutants = (texts[0], texts[1:]) if texts else ("", [])
    runs.num_planned = len(mutants)
    slowest_s = max((test.cpu_ms for test in reference.tests), default=0.0) / 1000
    cpu_s = min(item.limits.cpu_s, MIN_MUTANT_CPU_S + MUTANT_TIMES_REFERENCE * slowest_s)
    limited = item.model_copy(update={"limits": item.limits.model_copy(update={"cpu_s": cpu_s})})
    for at in range(0, len(mutants), BATCH):
        if runs.spent_cpu_ms > item.budget_cpu_s * 1000:
            return
        batch = mutants[at : at + BATCH]
        results = yield [_execute_item(limited, batch)]
        runs.mutant_texts += batch
        runs.mutants += results[0].programs


def _repeats(item: AuditItem, python: bool) -> list[OptionsSpec]:
    """How the reference is run again: Python under several hash seeds, other languages twice."""
    if not python:
        return [OptionsSpec(check_determinism=True)]
    return [OptionsSpec(fresh_interpreter=True, hash_seed=seed) for seed in range(1, item.hash_seeds + 1)]


def _execute_item(item: AuditItem, programs: Sequence[str], options: OptionsSpec | None = None) -> ExecuteItem:
    return ExecuteItem(
        language=item.language,
        programs=list(programs),
        tests=item.tests,
        limits=item.limits,
        options=options or OptionsSpec(),
    )
