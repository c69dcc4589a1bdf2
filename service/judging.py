"""The contract's tests as the sandbox's suites, and its reports as the contract's results."""

from __future__ import annotations

from dataclasses import asdict

from plaudit.schemas import (
    AssertTests,
    CheckTests,
    CompileResult,
    FunctionTests,
    HelperProgram,
    ProgramResult,
    PytestTests,
    ScriptTests,
    StdioTests,
    TestResult,
    Tests,
    UnittestTests,
)
from sandbox import types as sandbox


def to_suite(tests: Tests) -> sandbox.Suite:
    """Tests of a request as the sandbox's types. Tests of kind `ref` have been replaced before."""
    if isinstance(tests, AssertTests):
        return sandbox.AssertSuite(tuple(tests.asserts), tests.setup, tests.entry_point, tests.prelude)
    if isinstance(tests, FunctionTests):
        cases = tuple(
            sandbox.Case(tuple(case.args), case.kwargs, case.expected, tuple(case.also)) for case in tests.cases
        )
        return sandbox.FunctionSuite(tests.entry_point, cases, tests.rel_tol, tests.prelude)
    if isinstance(tests, CheckTests):
        return sandbox.CheckSuite(tests.test, tests.entry_point, tests.prompt, tests.prelude)
    if isinstance(tests, PytestTests | UnittestTests):
        suite_class = sandbox.PytestSuite if isinstance(tests, PytestTests) else sandbox.UnittestSuite
        return suite_class(tests.source, tuple(sorted(tests.files.items())), tests.entry_point, tests.prelude)
    if isinstance(tests, ScriptTests):
        return sandbox.ScriptSuite(tests.source, tests.position, tests.prelude)
    assert isinstance(tests, StdioTests)
    stdio_cases = tuple(
        sandbox.StdioCase(
            case.stdin,
            case.stdout if isinstance(case.stdout, str) else tuple(case.stdout),
            tuple(sorted(case.files.items())),
        )
        for case in tests.cases
    )
    return sandbox.StdioSuite(
        stdio_cases, tests.compare, tests.rel_tol, _helper(tests.checker), _helper(tests.interactor), tests.prelude
    )


def _helper(program: HelperProgram | None) -> sandbox.Program | None:
    return None if program is None else sandbox.Program(program.language, program.source)


def result_of(report: sandbox.Report, *, cached: bool = False, toolchain: str | None = None) -> ProgramResult:
    """What was judged, as the contract tells it.

    Args:
        report: of one program.
        cached: whether it was judged before.
        toolchain: digest of what judged; None where nobody asked.
    """
    return ProgramResult(
        status="ok",
        verdict=report.verdict,
        passed=report.passed,
        total=report.total,
        pass_rate=report.pass_rate,
        trainable=True,
        cached=cached,
        judge=report.judge,
        isolation=report.isolation,
        toolchain=toolchain,
        compile=None if report.compile is None else CompileResult(**asdict(report.compile)),
        tests=[TestResult(**{name: getattr(test, name) for name in TestResult.model_fields}) for test in report.tests],
        flags=list(report.flags),
    )
