"""What ordinary tests do with ordinary objects: a right program passes across the wall, a wrong one does not.

The rows are in `support/ordinary.txt`. Forging by the same means is in `test_program_methods.py`.
"""

from __future__ import annotations

import contextlib

import pytest

from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, CheckSuite, Limits, Program, Report, Stop, Suite
from support.grading import AREAS as TABLE
from support.grading import LIMITS as BOUNDARIES
from support.grading import Limit, grading_rows
from support.ordinary import ROWS, Row

LIMITS = Limits(cpu_s=5)
AREAS = sorted({row.area for row in ROWS})


def run(sandbox: Sandbox, source: str, suite: Suite) -> Report:
    return judge(Program("python", source), suite, LIMITS, Stop(), sandbox)


def check_suite(row: Row) -> CheckSuite:
    lines = "".join(f"    {line}\n" for line in row.test.splitlines())
    return CheckSuite(f"def check(candidate):\n{lines}", row.entry_point)


def of(area: str) -> list[Row]:
    return [row for row in ROWS if row.area == area]


def test_there_are_rows_enough_of_every_area() -> None:
    assert len(ROWS) >= 150
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("area", AREAS)
def test_a_right_program_passes_and_a_wrong_one_fails_each_assert(sandbox: Sandbox, area: str) -> None:
    problems = []
    for row in of(area):
        suite = AssertSuite((row.test,), "", row.entry_point)
        right, wrong = run(sandbox, row.right, suite), run(sandbox, row.wrong, suite)
        if right.passed != 1:
            problems.append(f"{row.name}: the right program: {right.verdict}: {right.tests[0].detail}")
        if wrong.passed:
            problems.append(f"{row.name}: the wrong program passes")
    assert problems == []


@pytest.mark.parametrize("area", AREAS)
def test_every_other_row_as_a_check_suite(sandbox: Sandbox, area: str) -> None:
    problems = []
    for row in of(area)[::2]:
        if "except*" in row.test:
            continue  # its bound names are the module's
        right, wrong = run(sandbox, row.right, check_suite(row)), run(sandbox, row.wrong, check_suite(row))
        if right.passed != 1:
            problems.append(f"{row.name}: the right program: {right.verdict}: {right.tests[0].detail}")
        if wrong.passed:
            problems.append(f"{row.name}: the wrong program passes")
    assert problems == []


@pytest.mark.extended
@pytest.mark.parametrize("area", AREAS)
def test_the_rows_are_what_plain_python_says(sandbox: Sandbox, area: str) -> None:
    """Program and test in one process: so the table is of Python, and not of what this wall can do."""
    from sandbox.types import Options

    wrong = []
    for row in of(area):
        suite = AssertSuite((row.test,), "", row.entry_point)
        for source, passed in ((row.right, 1), (row.wrong, 0)):
            with contextlib.suppress(SyntaxError):
                report = judge(Program("python", source), suite, LIMITS, Stop(), sandbox, Options(grading="together"))
                if report.passed != passed:
                    wrong.append(f"{row.name}: {report.verdict}: {report.tests[0].detail}")
    assert wrong == []


@pytest.mark.parametrize("limit", BOUNDARIES, ids=lambda limit: limit.what[:50])
def test_the_table_of_what_can_be_judged_is_true(sandbox: Sandbox, limit: Limit) -> None:
    """The page `docs/sandbox.md` has this table; `tests/unit/test_docs.py` compares."""
    report = run(sandbox, limit.program, AssertSuite((limit.test,), "", "plain"))
    assert report.verdict == limit.verdict, report.tests[0].detail
    if limit.verdict == "passed":
        assert report.judge == limit.judge


def test_the_table_has_all_areas() -> None:
    assert set(TABLE) == set(AREAS)
    for line in grading_rows():
        print(" | ".join(line))
