"""What an audit found, in sentences: gravest first, and what was not measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from plaudit.schemas import AuditItem, AuditReport, SuiteVerdict
from service.audit.runs import AuditRuns

ENOUGH_MUTANTS = 5  # for a mutation score to say something
FEW_MUTANTS = 3  # the same where none of them fails: all of so many are hardly equivalent to the reference
STRONG = 0.8  # mutation score; a few of the surviving mutants are equivalent to the reference
SLOW_SHARE = 0.5  # of the CPU limit, that a test of the reference needs
MAX_NAMED = 10  # places that a sentence names


def findings_of(
    item: AuditItem, runs: AuditRuns, report: AuditReport, *, python: bool
) -> tuple[SuiteVerdict, list[str], list[str]]:
    """The verdict, the problems, and what was not measured."""
    broken, weak = list(_broken(runs, report)), list(_weak(report))
    unmeasured = list(_unmeasured(item, runs, report, python))
    verdict: SuiteVerdict = "good" if report.reference_passes or report.false_rejects else "unknown"
    if broken or weak:
        verdict = "broken" if broken else "weak"
    return verdict, [*broken, *weak, *_untidy(item, report)], unmeasured


def _broken(runs: AuditRuns, report: AuditReport) -> Iterator[str]:
    """Why rewards by this suite are wrong."""
    invalid = [r.error for r in runs.all() if r.status == "invalid" and r.error and r.error.code == "invalid_tests"]
    if invalid:
        yield f"No program can be judged by this suite: {invalid[0].detail}"
    if report.reference_passes is False:
        failing = [at for at, test in enumerate(report.tests) if test.reference_passes is False]
        assert runs.reference is not None
        detail = next((test.detail for test in runs.reference.tests if test.detail), "")
        where = f"{_tests(failing)} {'fails' if len(failing) == 1 else 'fail'}" if failing else "it runs no test"
        yield f"The reference fails ({runs.reference.verdict}): {where}{f' ({detail[:200]})' if detail else ''}."
    if report.false_rejected:
        count, total = len(report.false_rejected), report.false_rejects.total if report.false_rejects else 0
        yield f"{count} of {total} right programs are rejected: {_places('program', report.false_rejected)}."
    if report.tests and all(test.vacuous for test in report.tests):
        yield "Every test passes for a program that answers nothing."


def _weak(report: AuditReport) -> Iterator[str]:
    """Why a wrong program may get a reward, or a right one none."""
    flaky = [at for at, test in enumerate(report.tests) if test.flaky]
    if flaky:
        yield f"The verdict on the reference differs between runs, each under another hash seed: {_tests(flaky)}."
    if report.hackable:
        yield "A program that knows only the visible examples passes the whole suite."
    if report.false_accepted:
        count, total = len(report.false_accepted), report.false_accepts.total if report.false_accepts else 0
        yield f"{count} of {total} wrong programs are accepted: {_places('program', report.false_accepted)}."
    score = report.mutation_score
    enough = score is not None and (score.total >= ENOUGH_MUTANTS or (score.count == 0 and score.total >= FEW_MUTANTS))
    if score is not None and enough and score.rate < STRONG:
        yield f"{score.total - score.count} of {score.total} mutants of the reference pass every test."
    vacuous = [at for at, test in enumerate(report.tests) if test.vacuous]
    if vacuous and len(vacuous) < len(report.tests):
        yield f"Vacuous, they pass for a program that answers nothing: {_tests(vacuous)}."


def _untidy(item: AuditItem, report: AuditReport) -> Iterator[str]:
    """What costs time and changes no verdict."""
    repeated = [at for at, test in enumerate(report.tests) if test.duplicate_of is not None]
    if repeated:
        firsts = ", ".join(f"{at} of {report.tests[at].duplicate_of}" for at in repeated[:MAX_NAMED])
        yield f"Duplicates: {_tests(repeated)} ({firsts})."
    slow = [
        at
        for at, test in enumerate(report.tests)
        if test.cpu_ms is not None and test.cpu_ms > SLOW_SHARE * 1000 * item.limits.cpu_s
    ]
    if slow:
        yield f"The reference needs over half of the CPU limit of {item.limits.cpu_s:g} s: {_tests(slow)}."


def _unmeasured(item: AuditItem, runs: AuditRuns, report: AuditReport, python: bool) -> Iterator[str]:
    codes = Counter(
        f"{result.error.code}: {result.error.detail}" if result.error else result.status
        for result in runs.all()
        if result.status != "ok" and not (result.error and result.error.code == "invalid_tests")
    )
    for code, count in codes.most_common(5):
        yield f"{count} runs have no verdict ({code[:300]})."
    if item.reference is None:
        yield "mutation score, flaky tests, time: no reference was given."
    elif not python:
        yield f"mutation score, hackability: only of Python programs, not of {item.language}."
    elif report.reference_passes is False:
        yield "mutation score: the reference fails."
    elif runs.num_planned > len(runs.mutants):
        left = runs.num_planned - len(runs.mutants)
        yield f"{left} of {runs.num_planned} mutants: budget_cpu_s of {item.budget_cpu_s:g} was spent."
    elif report.mutation_score is None:
        yield "mutation score: no mutant of the reference was judged."
    elif report.mutation_score.total < ENOUGH_MUTANTS:
        yield f"mutation score: {report.mutation_score.total} mutants of so short a reference say little."
    if python and runs.hack is None:
        yield "hackability: neither the prompt nor the suite shows a call with its value."
    if any("nondeterministic" in result.flags for result in runs.seeded):
        yield "which tests are flaky: the reference's two runs differ, and only the program as a whole was compared."
    if item.tests.kind in ("check", "script"):
        yield f"duplicates, and tests one by one: a suite of kind {item.tests.kind} is judged as one test."
    if not any(program.right for program in item.programs):
        yield "false-reject rate: no right programs were given."
    if all(program.right for program in item.programs):
        yield "false-accept rate: no wrong programs were given."


def _tests(places: Sequence[int]) -> str:
    return _places("test", places)


def _places(noun: str, places: Sequence[int]) -> str:
    named = ", ".join(map(str, places[:MAX_NAMED]))
    more = f" and {len(places) - MAX_NAMED} more" if len(places) > MAX_NAMED else ""
    return f"{noun}{'' if len(places) == 1 else 's'} {named}{more}"
