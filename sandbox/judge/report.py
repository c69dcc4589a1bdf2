"""The report of a judged program, put together from the reports of its tests."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.grading import SEVERITY, Judge, Level, Verdict
from sandbox.types import CompileReport, Report, TestReport


def build_report(
    tests: Sequence[TestReport],
    total: int,
    judged_by: Judge,
    isolation: Level,
    *,
    flags: set[str],
    compiled: CompileReport | None = None,
    uncounted: frozenset[int] = frozenset(),
    names: tuple[str, ...] = (),
) -> Report:
    """The report of the tests that ran; the others are `skipped` and count as not passed.

    Args:
        tests: reports of the first tests, in order.
        total: how many tests the suite has.
        judged_by: what the verdicts rest on.
        isolation: the level of the sandbox.
        flags: what is worth saying beside the verdicts.
        compiled: the compiler's report, if there is one.
        uncounted: numbers of tests that are reported and do not count (unjudgeable, skipped by the suite).
        names: of the tests, where they have names.
    """
    counted = [test.verdict for number, test in enumerate(tests) if number not in uncounted]
    skipped = [TestReport(Verdict.SKIPPED, detail="not run", name=name) for name in names[len(tests) : total]]
    skipped += [TestReport(Verdict.SKIPPED, detail="not run")] * (total - len(tests) - len(skipped))
    return Report(
        verdict=worst_verdict(counted),
        passed=sum(verdict is Verdict.PASSED for verdict in counted),
        total=total - len(uncounted),
        tests=(*tests, *skipped),
        judge=judged_by,
        isolation=isolation,
        compile=compiled,
        flags=tuple(sorted(flags)),
    )


def worst_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """The most severe of some verdicts; `skipped` for none."""
    return min(verdicts, key=SEVERITY.index, default=Verdict.SKIPPED)


def deterministic_part(report: Report) -> object:
    """What two runs of a deterministic program have in common: all but time and memory."""
    return [(test.verdict, test.stdout, test.outcome) for test in report.tests], report.output


def with_flags(flags: Sequence[str], *more: str) -> tuple[str, ...]:
    """Flags as a report has them: sorted, each once."""
    return tuple(sorted({*flags, *more}))
