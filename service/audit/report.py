"""The results of an audit's runs, joined into its report."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

from plaudit.grading import Verdict
from plaudit.schemas import (
    AuditedTest,
    AuditItem,
    AuditRate,
    AuditReport,
    FunctionTests,
    ProgramResult,
    PytestTests,
    StdioTests,
    Survivor,
    UnittestTests,
)
from service.audit.findings import findings_of
from service.audit.runs import AuditRuns
from service.audit.suite_texts import duplicates, same_bodies, test_names, test_texts

MAX_SURVIVORS = 20
MAX_DIFF = 1500  # characters
Z = 1.959963984540054  # of a 95 % interval


def report_of(item: AuditItem, runs: AuditRuns, *, python: bool) -> AuditReport:
    """Join what was run.

    Args:
        item: what was audited.
        runs: its results; those without a verdict count for nothing, and are said to be missing.
        python: whether the programs are Python.
    """
    mutants = [
        (text, result) for text, result in zip(runs.mutant_texts, runs.mutants, strict=True) if result.status == "ok"
    ]
    surviving = [text for text, result in mutants if result.verdict == Verdict.PASSED]
    given = list(enumerate(zip(item.programs, runs.given, strict=True)))
    right = [(at, result) for at, (program, result) in given if program.right and result.status == "ok"]
    wrong = [(at, result) for at, (program, result) in given if not program.right and result.status == "ok"]
    accepted = [at for at, result in wrong if result.verdict == Verdict.PASSED]
    rejected = [at for at, result in right if result.verdict != Verdict.PASSED]
    reference = runs.reference if runs.reference is not None and runs.reference.status == "ok" else None
    report = AuditReport(
        id=item.id,
        kind=item.tests.kind,
        verdict="unknown",
        problems=[],
        unmeasured=[],
        tests=_tests(item, runs, reference, [result for _, result in mutants]),
        reference_passes=None if reference is None else reference.verdict == Verdict.PASSED,
        mutation_score=rate(len(mutants) - len(surviving), len(mutants)),
        survivors=[Survivor(diff=_diff(runs.printed, text)) for text in surviving[:MAX_SURVIVORS]],
        false_accepts=rate(len(accepted), len(wrong)),
        false_rejects=rate(len(rejected), len(right)),
        false_accepted=accepted,
        false_rejected=rejected,
        hackable=_hackable(runs),
        hack=runs.hack,
        cpu_ms=None if reference is None else round(sum(test.cpu_ms for test in reference.tests), 2),
        spent_cpu_ms=round(runs.spent_cpu_ms, 2),
        server_errors=sum(result.status not in ("ok", "invalid") for result in runs.all()),
    )
    verdict, problems, unmeasured = findings_of(item, runs, report, python=python)
    return report.model_copy(update={"verdict": verdict, "problems": problems, "unmeasured": unmeasured})


def rejected_report(item: AuditItem, detail: str) -> AuditReport:
    """The report of a suite by which no program can be judged."""
    return AuditReport(
        id=item.id,
        kind=item.tests.kind,
        verdict="broken",
        problems=[f"No program can be judged by this suite: {detail}"],
        unmeasured=[],
        tests=[],
        spent_cpu_ms=0.0,
    )


def rate(count: int, total: int) -> AuditRate | None:
    """A share with Wilson's interval; None of nothing."""
    if not total:
        return None
    share, spread = count / total, Z * Z / total
    center = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / total + spread / total / 4) / (1 + spread)
    low, high = max(0.0, center - half), min(1.0, center + half)
    return AuditRate(count=count, total=total, rate=round(share, 4), low=round(low, 4), high=round(high, 4))


def _hackable(runs: AuditRuns) -> bool | None:
    return None if runs.hacked is None or runs.hacked.status != "ok" else runs.hacked.verdict == Verdict.PASSED


def _tests(
    item: AuditItem, runs: AuditRuns, reference: ProgramResult | None, mutants: Sequence[ProgramResult]
) -> list[AuditedTest]:
    judged = [result for result in runs.all() if result.status == "ok" and result.tests]
    # Of a test file the number of tests is known once it has run; a program that crashes may hide some.
    shown = reference if reference is not None and reference.tests else max(judged, key=_num_tests, default=None)
    if shown is None:
        return []
    num_tests = len(shown.tests)
    names = test_names(item.tests, [test.name for test in shown.tests])
    texts = test_texts(item.tests)
    if texts is not None:
        equal = duplicates(texts)
    elif isinstance(item.tests, PytestTests | UnittestTests):
        equal = same_bodies(item.tests.source, [test.name for test in shown.tests])
    else:
        equal = [None] * num_tests
    seeded = [result for result in runs.seeded if result.status == "ok" and len(result.tests) == num_tests]
    alike = [result for result in judged if len(result.tests) == num_tests]
    failed = [_failed(result, num_tests) for result in mutants]
    tests = []
    for at, (name, same) in enumerate(zip(names, equal, strict=False)):
        verdicts = {result.tests[at].verdict for result in seeded}
        own = None if reference is None or len(reference.tests) != num_tests else reference.tests[at]
        killing = [places for places in failed if at in places]
        tests.append(
            AuditedTest(
                name=name,
                vacuous=any(result.tests[at].vacuous for result in alike) or _passes_silence(item, runs, at),
                duplicate_of=same,
                flaky=len(verdicts | ({own.verdict} if own else set())) > 1 if seeded else None,
                reference_passes=None
                if own is None or own.verdict == Verdict.SKIPPED
                else own.verdict == Verdict.PASSED,
                kills=len(killing) if mutants else None,
                kills_alone=sum(len(places) == 1 for places in killing) if mutants else None,
                cpu_ms=None if own is None else round(own.cpu_ms, 2),
            )
        )
    return tests


def _num_tests(result: ProgramResult) -> int:
    return len(result.tests)


def _passes_silence(item: AuditItem, runs: AuditRuns, at: int) -> bool:
    """Whether a test passes for the silent program.

    Of the kinds on which the judge tries control programs of its own only where the whole suite does: one assertion of
    many that None fits may be right.
    """
    if runs.silent is None:
        return False
    if not isinstance(item.tests, FunctionTests | StdioTests):
        return runs.silent.verdict == Verdict.PASSED
    return at < len(runs.silent.tests) and runs.silent.tests[at].verdict == Verdict.PASSED


def _failed(result: ProgramResult, num_tests: int) -> frozenset[int]:
    """The places of the tests that a mutant fails: all of them, where it did not get as far as its tests."""
    if result.verdict == Verdict.PASSED:
        return frozenset()
    if len(result.tests) != num_tests:
        return frozenset(range(num_tests))
    uncounted = (Verdict.PASSED, Verdict.UNJUDGEABLE, Verdict.SKIPPED)
    return frozenset(at for at, test in enumerate(result.tests) if test.verdict not in uncounted)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "reference", "mutant", lineterm="", n=1)
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFF else text[: MAX_DIFF - 1] + "…"
