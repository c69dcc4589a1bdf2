"""Observes programs: what a program answers to each input, as a short outcome that two programs can be compared by.

- One process makes all calls of a function. A call that ends it costs a fresh process for the rest, `MAX_LOST` times at
  most. What the budget does not reach is `skipped`, with the outcome `t:budget`.
- Outcomes: `v:` and the digest of a value (`values.py`) or of what was printed, `e:` and the name of an exception, `o:`
  and the type of an answer that is not a plain value, `t:` and the verdict on everything else.
- The verdict is by `expected` or `stdout` where they are given; elsewhere a value is `passed`.
- A program chooses its answers only: they are digested and compared here, outside the jail.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from plaudit.grading import Compare, Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import bounds, codec
from sandbox.judge.build import ProgramText, ready
from sandbox.judge.compare import Opaque, same_output
from sandbox.judge.function_calls import CandidateProcess, EntryPointCall, Undecided
from sandbox.judge.meter import TestMeter
from sandbox.judge.report import build_report
from sandbox.judge.request import JudgeRequest
from sandbox.judge.run_only import run_once
from sandbox.judge.stdio import NOT_COMPILED
from sandbox.judge.streams import encoded
from sandbox.judge.values import call_values, digest_of, digest_of_text, literal_of, same
from sandbox.run import RunOutcome
from sandbox.types import ObservedCall, ObserveSuite, Report, RunSuite, TestReport

BUDGET_SPENT = "t:budget"
MAX_LOST = 2  # processes of one program that its calls end; the rest of the calls is not made
MAX_CALLS = 1_000
MAX_WALL_S = 5.0  # of all calls of one program, which may sleep; the rest is skipped like beyond the CPU budget
DECIMAL = re.compile(r"\d\.\d")
SHOWN_NAME = 60  # characters of an exception's or a type's name


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """An observed call of a function, read: the trees of its arguments, and of the value that is expected."""

    args: list[Any]
    names: list[str]
    is_judged: bool
    expected: Any
    tolerance: float | None = None


class Observation:
    """The outcome of one call, which its `judge` finds."""

    def __init__(self, planned: PlannedCall) -> None:
        self.planned = planned
        self.outcome = ""

    def judge(self, tree: Any) -> RunOutcome:
        try:
            self.outcome = f"v:{digest_of(tree)}"
            right = not self.planned.is_judged or same(tree, self.planned.expected, self.planned.tolerance)
        except Opaque:
            kind = codec.describe_handle(tree) if type(tree) is dict and tree.get("t") == "h" else "nested"
            self.outcome = shortened("o", kind)
            return RunOutcome(Verdict.INVALID_RESULT, "the answer is not a plain value")
        except codec.CodecError as error:
            self.outcome = "o:malformed"
            return RunOutcome(Verdict.INVALID_RESULT, bounds.text(str(error)))
        if right:
            return RunOutcome(Verdict.PASSED)
        return RunOutcome(Verdict.WRONG_ANSWER, f"returned {codec.beginning(tree, 300)}")


def judge_observed(request: JudgeRequest, suite: ObserveSuite) -> Report:
    """Observe the program on every input. Raises InvalidSuite."""
    check_budgets(suite)
    limits = replace(request.limits, cpu_s=min(suite.call_cpu_s, suite.budget_cpu_s))
    request = replace(request, limits=limits)
    began_s, jobs_ns = time.thread_time(), request.sandbox.jobs_cpu_ns
    report = observe_calls(request, suite) if suite.entry_point else observe_runs(request, suite)
    cpu_s = time.thread_time() - began_s + (request.sandbox.jobs_cpu_ns - jobs_ns) / 1e9
    return replace(report, cpu_ms=round(1000 * cpu_s, 3))


def check_budgets(suite: ObserveSuite) -> None:
    """Raises InvalidSuite for budgets that allow nothing, and for too many calls."""
    if suite.call_cpu_s <= 0 or suite.budget_cpu_s <= 0:
        raise InvalidSuite("call_cpu_s and budget_cpu_s must be above 0")
    if len(suite.calls) > MAX_CALLS:
        raise InvalidSuite(f"the suite has {len(suite.calls)} calls; at most {MAX_CALLS} are allowed")


@lru_cache(maxsize=64)
def planned_calls(calls: Sequence[ObservedCall]) -> list[PlannedCall]:
    """The calls of a suite, shared by all programs of a group. Raises InvalidSuite."""
    planned = []
    for number, call in enumerate(calls):
        try:
            args, named = call_values(call.arguments)
            expected = None if call.expected is None else codec.encode(literal_of(call.expected))
            trees = [codec.encode(value) for value in (*args, *named.values())]
            codec.dumps(trees)
        except (ValueError, codec.CodecError) as error:
            raise InvalidSuite(f"calls[{number}]: {error}") from None
        planned.append(PlannedCall(trees, list(named), call.expected is not None, expected, call.tolerance))
    return planned


def observe_calls(request: JudgeRequest, suite: ObserveSuite) -> Report:
    """The report of a function's calls. Raises InvalidSuite."""
    calls = planned_calls(suite.calls)
    assert suite.entry_point
    tests: list[TestReport] = []
    run_flags: set[str] = set()
    spent_s, num_lost, ends_s = 0.0, 0, time.monotonic() + MAX_WALL_S

    def is_left() -> bool:
        return len(tests) < len(calls) and spent_s < suite.budget_cpu_s and time.monotonic() < ends_s

    while is_left() and num_lost < MAX_LOST:
        num_lost += 1
        with CandidateProcess(request, len(calls)) as candidate:
            meter = TestMeter(candidate.run)
            refused = candidate.greeting()
            if refused is not None:
                failed = observed(meter.report(refused.verdict or Verdict.NO_RESULT, refused.detail), refused)
                free = replace(failed, cpu_ms=0.0, wall_ms=0.0)  # the one attempt to load it is counted once
                tests += [failed, *[free] * (len(calls) - len(tests) - 1)]
                run_flags |= candidate.flags()
                break
            alive = True
            while alive and is_left():
                candidate.run.grant()
                observation = Observation(calls[len(tests)])
                outcome = observe(candidate, suite.entry_point, observation)
                limited = meter.with_limits(outcome)
                test = meter.report(limited.verdict or Verdict.NO_RESULT, limited.detail)
                tests.append(observed(test, limited, observation.outcome if limited is outcome else ""))
                spent_s += tests[-1].cpu_ms / 1000
                gone = candidate.run.job_exit is not None or candidate.run.killed_for is not None
                alive = not gone and answered(limited, observation)
                meter = meter.next()
            run_flags |= candidate.flags()
    tests += [not_reached()] * (len(calls) - len(tests))
    return build_report(tests, len(calls), "split", request.sandbox.level, flags=run_flags)


def observe(candidate: CandidateProcess, entry_point: str, observation: Observation) -> RunOutcome:
    """Make one call, and judge its answer."""
    planned = observation.planned
    call = EntryPointCall(planned.args, planned.names, observation.judge, max_bytes=bounds.MAX_LITERAL_BYTES)
    try:
        return candidate.call(entry_point, call)
    except Undecided as undecided:
        observation.outcome = "o:large"
        return RunOutcome(Verdict.INVALID_RESULT, str(undecided))


def answered(outcome: RunOutcome, observation: Observation) -> bool:
    """Whether the process still serves after this call: it gave an answer, or raised."""
    if outcome.verdict in (Verdict.OUTPUT_LIMIT, Verdict.TIME_LIMIT):
        return False
    return bool(observation.outcome) or outcome.verdict is not Verdict.INVALID_RESULT


def observe_runs(request: JudgeRequest, suite: ObserveSuite) -> Report:
    """The report of runs on standard input, one per call. Raises InvalidSuite."""
    isolation, total = request.sandbox.level, len(suite.calls)
    with ready(request, ProgramText(request.source)) as (job, compiled):
        if job is None:
            failed = replace(NOT_COMPILED, outcome=f"t:{NOT_COMPILED.verdict}")
            return build_report([failed] * total, total, "bytes", isolation, flags=set(), compiled=compiled)
        tests: list[TestReport] = []
        run_flags: set[str] = set()
        spent_s, num_lost, ends_s = 0.0, 0, time.monotonic() + MAX_WALL_S
        for call in suite.calls:
            if spent_s >= suite.budget_cpu_s or num_lost >= MAX_LOST or time.monotonic() >= ends_s:
                break
            test, output, more = run_once(request, RunSuite(call.stdin or ""), job)
            run_flags |= more
            spent_s += test.cpu_ms / 1000
            num_lost += test.verdict is Verdict.TIME_LIMIT
            outcome, verdict = f"t:{test.verdict}", test.verdict
            if verdict is Verdict.PASSED:
                outcome = f"v:{digest_of_text(output.stdout)}"
                if call.stdout is not None and not _is_shown(output.stdout, call.stdout):
                    verdict = Verdict.WRONG_ANSWER
            tests.append(replace(test, verdict=verdict, outcome=outcome, stdout="", stderr=""))
    tests += [not_reached()] * (total - len(tests))
    return build_report(tests, total, "bytes", isolation, flags=run_flags, compiled=compiled)


def _is_shown(printed: bytes, stdout: str) -> bool:
    """Whether an output is the sample's; a decimal counts by its value, because prompts allow an error."""
    mode: Compare = "float" if DECIMAL.search(stdout) else "rstrip"
    return same_output(printed, encoded(stdout, "a call's stdout"), mode)


def observed(test: TestReport, outcome: RunOutcome, digest: str = "") -> TestReport:
    """The report of a call with its outcome; what the program printed is nobody's question."""
    if not digest:
        raised = outcome.verdict is Verdict.RUNTIME_ERROR and ": " in outcome.detail
        name = outcome.detail.partition(": ")[0]
        digest = shortened("e", name) if raised else f"t:{test.verdict}"
    return replace(test, outcome=digest, stdout="", stderr="")


def not_reached() -> TestReport:
    return TestReport(Verdict.SKIPPED, detail="the budget of all calls was spent", outcome=BUDGET_SPENT)


def shortened(kind: str, name: str) -> str:
    return f"{kind}:{bounds.encodable(name)[:SHOWN_NAME]}"
