"""The plan of a suite of code: what the test process gets, and what only the host knows."""

from __future__ import annotations

from typing import Any

from sandbox.errors import InvalidSuite
from sandbox.jail_job import JailJob
from sandbox.judge import codec
from sandbox.judge.entry_points import derived_entry_point
from sandbox.judge.suite_analysis import complete_part
from sandbox.judge.suite_kinds import KIND_OF
from sandbox.judge.working_files import path_of
from sandbox.limits import suite_limits
from sandbox.types import AssertSuite, CheckSuite, Limits, PytestSuite, UnittestSuite

CodeSuite = AssertSuite | CheckSuite | PytestSuite | UnittestSuite

MODULE_KINDS = ("pytest", "unittest")  # a test file, whose tests have names
OF_THE_HOST = ("names", "uncounted")  # parts of a plan that the test process does not get
SURELY_SMALL = 1 << 18  # characters of tests whose plan certainly fits into a message


def plan_of(suite: CodeSuite) -> dict[str, Any]:
    """What the test process gets: texts, and the files of a test file."""
    if isinstance(suite, PytestSuite | UnittestSuite):
        own = ("/tmp/test_suite.py", suite.source.encode("utf-8", "surrogatepass"))
        return {
            "kind": KIND_OF[type(suite)],
            "setup": "",
            "helpers": "",
            "entry_point": suite.entry_point or "",
            "tests": [suite.source],
            "files": [own, *((path_of(name), content) for name, content in suite.files)],
        }
    if isinstance(suite, CheckSuite):
        return {
            "kind": "check",
            "setup": "",
            "helpers": complete_part(suite.prompt),
            "entry_point": suite.entry_point,
            "tests": [suite.test],
        }
    entry_point = suite.entry_point or derived_entry_point(suite)
    return {
        "kind": "assert",
        "setup": suite.setup,
        "helpers": "",
        "entry_point": entry_point,
        "tests": list(suite.asserts),
    }


def tests_job(plan: dict[str, Any], limits: Limits, num_tests: int, fds: dict[int, int]) -> JailJob:
    """The job of the test process."""
    return JailJob(
        role="tests",
        argv=("tests",),
        limits=suite_limits(limits),
        fds=fds,
        source=codec.dumps(sent_plan(plan)),
        num_budgets=num_tests + 1,
        jail_kind="pytest" if plan["kind"] in MODULE_KINDS else "tests",
        files=plan.get("files", ()),
    )


def sent_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """The part of a plan that the test process reads: texts, and the names of files."""
    files = [path.rpartition("/")[2] for path, _ in plan.get("files", ())]
    return {name: value for name, value in plan.items() if name not in OF_THE_HOST} | {"files": files}


def check_plan(plan: dict[str, Any]) -> None:
    """Raises InvalidSuite for tests that are too large for one message to their process."""
    if sum(map(len, (plan["setup"], plan["helpers"], *plan["tests"]))) < SURELY_SMALL:
        return
    try:
        codec.dumps(sent_plan(plan))
    except codec.CodecError as error:
        raise InvalidSuite(f"the tests are too large: {error}") from None


def num_tests(plan: dict[str, Any]) -> int:
    """How many tests a plan has; those of a test file are known from its control run."""
    return len(plan["names"]) if plan["kind"] in MODULE_KINDS else len(plan["tests"])


def without_parameters(name: Any) -> str:
    """A test's name without its parameters."""
    return str(name).partition("[")[0]


def same_tests(names: Any, expected: Any) -> bool:
    """Whether a test file has the tests that its control run had; names of parameters may differ."""
    if not expected:
        return True
    return isinstance(names, list) and [without_parameters(name) for name in names] == [
        without_parameters(name) for name in expected
    ]
