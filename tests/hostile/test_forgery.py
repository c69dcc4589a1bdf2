"""No program of any family gets a test passed that it has not earned, whatever the kind of suite.

The families know the insides of harnesses that run tests and program in one process, and the wire of this one
(`support/exploits.py`). `benchmarks/forgery.py` runs them against other harnesses as well.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
from pathlib import Path

import pytest

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Case, CheckSuite, FunctionSuite, Limits, Program, Report, Stop, Suite
from support.exploits import FAMILIES, OURS, Problem, completion

DATA = Path(os.environ.get("PLAUDIT_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
PROBLEMS = DATA / "problems.python.jsonl.gz"
LIMITS = Limits(cpu_s=5)
SHORT = Limits(cpu_s=0.5, wall_s=10)  # single asserts let some families talk for ever
MODELS = {"double": ((2, 4), (-3, -6)), "span": (([3, 1, 2], [1, 3]), ([], None))}


def run(sandbox: Sandbox, source: str, suite: Suite, limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), suite, limits, Stop(), sandbox)


def check_suite(problem: Problem) -> CheckSuite:
    return CheckSuite(problem.test, problem.entry_point, problem.prompt)


def assert_suite(problem: Problem) -> AssertSuite:
    """The same tests one by one."""
    body = ast.parse(problem.test).body[0]
    assert isinstance(body, ast.FunctionDef)
    texts = [ast.unparse(line).replace("candidate(", f"{problem.entry_point}(") for line in body.body]
    return AssertSuite(tuple(texts), "", problem.entry_point)


@pytest.mark.parametrize("problem", OURS, ids=lambda problem: problem.entry_point)
def test_the_problems_can_be_solved(sandbox: Sandbox, problem: Problem) -> None:
    source = problem.prompt + problem.solution
    assert run(sandbox, source, check_suite(problem)).verdict is Verdict.PASSED
    assert run(sandbox, source, assert_suite(problem)).verdict is Verdict.PASSED


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_forges_a_check(sandbox: Sandbox, family: str) -> None:
    forged = {
        problem.name: report.tests[0].detail
        for problem in OURS
        if (report := run(sandbox, completion(family, problem.entry_point), check_suite(problem))).passed
    }
    assert forged == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_forges_all_asserts(sandbox: Sandbox, family: str) -> None:
    """Single asserts of truth or membership may be met by a value that anybody could return; not all of a problem's."""
    at = list(FAMILIES).index(family)
    for problem in (OURS[at % len(OURS)], OURS[(at + 2) % len(OURS)]):
        report = run(sandbox, problem.prompt + completion(family, problem.entry_point), assert_suite(problem), SHORT)
        assert report.verdict is not Verdict.PASSED


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_forges_a_returned_value(sandbox: Sandbox, family: str) -> None:
    for entry_point, cases in MODELS.items():
        suite = FunctionSuite(entry_point, tuple(Case((given,), {}, wanted) for given, wanted in cases))
        source = f"def {entry_point}(x):\n{completion(family, entry_point)}"
        report = run(sandbox, source, suite)
        assert report.verdict is not Verdict.PASSED
        # `None` and `True` are answers that a program may happen to give; nothing else here is.
        assert all(wanted is None for (_, wanted), test in zip(cases, report.tests, strict=True) if not test.detail)


def humaneval() -> list[Problem]:
    with gzip.open(PROBLEMS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Problem(
            row["task_id"],
            row["prompt"],
            row["entry_point"],
            row["test_setup"] + "\n" + re.sub(r"\ncheck\(\w+\)\s*\Z", "\n", row["test_code"]),
            "",
        )
        for row in rows
        if row["task_id"].startswith("HumanEval")
    ]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not PROBLEMS.exists(), reason=f"needs the public data folder (PLAUDIT_DATA): {DATA}")
def test_no_family_forges_any_of_every_sixth_public_problem(sandbox: Sandbox) -> None:
    """All of them: `python benchmarks/forgery.py`."""
    forged = [
        (family, problem.name)
        for problem in humaneval()[::6]
        for family in FAMILIES
        if run(sandbox, completion(family, problem.entry_point), check_suite(problem)).passed
    ]
    assert forged == []
