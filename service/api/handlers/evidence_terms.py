"""The terms `examples` and `behavior`: pure functions over what was observed of a group.

- A program that the service could not run has no value. One without code passes nothing and agrees with nobody.
- An example that was dropped counts for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.grading import Verdict
from plaudit.schemas import BehaviorTerm, Component, EvidenceTerm, ResultError, Status
from sandbox.types import Report
from service.api.handlers.evidence import Observed
from service.api.handlers.plan import problem_of
from service.evidence.behavior import VALUE, behavior, confidence
from service.jobs import Failed

NO_CODE = f"t:{Verdict.NO_CODE}"


def unavailable(term: EvidenceTerm, observed: Observed) -> ResultError | None:
    """Why the group has no evidence for a term."""
    return observed.no_inputs if isinstance(term, BehaviorTerm) else observed.no_examples


def evidence_values(term: EvidenceTerm, observed: Observed) -> list[Component]:
    """One component per completion, without its contribution yet."""
    problem = unavailable(term, observed)
    if problem is not None:
        status: Status = "infra_error" if problem.retryable else "invalid"
        return [Component(status=status, error=problem)] * len(observed.reports)
    known = [index for index, report in enumerate(observed.reports) if not isinstance(report, Failed)]
    rates = [example_rate(observed, index) for index in known]
    if isinstance(term, BehaviorTerm):
        rows = [_answers(observed, index) for index in known]
        values = dict(zip(known, behavior(rows, rates if observed.kept else None), strict=True))
    else:
        values = dict(zip(known, rates, strict=True))
    return [_component(report, values.get(index)) for index, report in enumerate(observed.reports)]


def margin(observed: Observed, best: int) -> float | None:
    """How sure the choice of a completion is by what was observed; None where nothing was, or not of this one.

    What has not run or was cut short may be right, and says so here. An example that nobody passes may have been read
    wrongly, or nobody is right: so each that was dropped counts against the choice.
    """
    known = [index for index, report in enumerate(observed.reports) if not isinstance(report, Failed)]
    evidence = observed.evidence
    if evidence is None or not (observed.kept or evidence.inputs) or best not in known:
        return None
    if not observed.kept and len(observed.reports) == 1:
        return None  # it agrees with itself
    rows = [_answers(observed, index) for index in known]
    if not any(answer.startswith(VALUE) for answer in rows[known.index(best)]):
        rows = [_example_answers(observed, index) for index in known]  # the examples had settled it
    rates = [example_rate(observed, index) for index in known] if observed.kept else None
    num_unknown = len(observed.reports) - len(known)
    if not evidence.settled:
        num_unknown += sum(index != best and _was_cut(observed, index) for index in known)
    sure = confidence(rows, rates, known.index(best), num_unknown=num_unknown)
    return sure * (1 + len(observed.kept)) / (1 + observed.num_examples)


def _was_cut(observed: Observed, index: int) -> bool:
    """Whether a program has not passed the examples that count for lack of time."""
    report = observed.reports[index]
    cut = (Verdict.TIME_LIMIT, Verdict.SKIPPED)
    return isinstance(report, Report) and any(report.tests[at].verdict in cut for at in observed.kept)


def _component(report: Report | Failed | None, value: float | None) -> Component:
    if isinstance(report, Failed):
        return Component(status=report.state.value, error=problem_of(report))  # type: ignore[arg-type]
    return Component(status="ok", value=value, verdict=Verdict.NO_CODE if report is None else None)


def example_rate(observed: Observed, index: int) -> float:
    """Share of the examples that count which a completion passes; 0 without any."""
    report = observed.reports[index]
    if not isinstance(report, Report) or not observed.kept:
        return 0.0
    return sum(report.tests[at].verdict is Verdict.PASSED for at in observed.kept) / len(observed.kept)


def _answers(observed: Observed, index: int) -> Sequence[str]:
    report, evidence = observed.reports[index], observed.evidence
    assert evidence is not None
    if not isinstance(report, Report):
        return [NO_CODE] * evidence.inputs
    return [test.outcome for test in report.tests[observed.num_examples :]]


def _example_answers(observed: Observed, index: int) -> Sequence[str]:
    report = observed.reports[index]
    if not isinstance(report, Report):
        return [NO_CODE] * observed.num_examples
    return [test.outcome for test in report.tests[: observed.num_examples]]
