"""A program against its suite: the one function that the service calls."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sandbox import languages
from sandbox import limits as fences
from sandbox.errors import InvalidOptions, InvalidSuite, SandboxError, Starved, UnsupportedLanguage
from sandbox.jail import Job
from sandbox.judge import codec
from sandbox.judge.calls import calls_of, judge_calls
from sandbox.judge.control import Control, control_of
from sandbox.judge.forms import recognised
from sandbox.judge.literals import Undecided, literal_calls
from sandbox.judge.output import MAIN, check_run, path_of, run_once
from sandbox.judge.programs import Text, ready
from sandbox.judge.script import combined
from sandbox.judge.script_control import check_script
from sandbox.judge.shared import judge_number, judge_shared
from sandbox.judge.split import judge_tests, num_tests, told
from sandbox.judge.stdio import judge_case
from sandbox.judge.suite_checks import flaw_of
from sandbox.judge.texts import sayable
from sandbox.types import (
    NO_OPTIONS,
    SEVERITY,
    AssertSuite,
    CheckSuite,
    CompileReport,
    FunctionSuite,
    Limits,
    Options,
    Program,
    PytestSuite,
    Report,
    RunSuite,
    ScriptSuite,
    StdioSuite,
    Stop,
    Suite,
    TestReport,
    UnittestSuite,
    Verdict,
)
from sandbox.types import Judge as JudgeName

if TYPE_CHECKING:
    from sandbox.walls import Sandbox

SPLIT: JudgeName = "split"
SHARED: JudgeName = "shared_process"
PATIENCE = 3  # how much longer a starved run may take when it is run again

CodeSuite = AssertSuite | CheckSuite | PytestSuite | UnittestSuite

# What reads stdin can as well be run without a judgement.
KIND_OF: dict[type, str] = {
    AssertSuite: "assert",
    FunctionSuite: "function",
    CheckSuite: "check",
    PytestSuite: "pytest",
    UnittestSuite: "unittest",
    StdioSuite: "stdio",
    ScriptSuite: "script",
    RunSuite: "stdio",
}

CODE_KINDS = ("assert", "check", "pytest", "unittest")  # of tests that could be in the program's own process
NOT_COMPILED = TestReport(Verdict.COMPILE_ERROR, detail="the program does not compile")


def judge(
    program: Program, suite: Suite, limits: Limits, stop: Stop, box: Sandbox, options: Options = NO_OPTIONS
) -> Report:
    """Run the program against the suite and report. Blocks for the suite's budgets at most; never hangs.

    Raises UnsupportedLanguage, InvalidSuite (also for limits out of range), InvalidOptions, and SandboxError for our
    own faults.
    """
    language = languages.resolve(program.language)
    if isinstance(suite, AssertSuite | FunctionSuite | StdioSuite):
        size(suite)
    asked, suite = suite, recognised(suite, language)
    if isinstance(suite, AssertSuite) and not suite.entry_point:
        derived_entry_point(suite)
    flaw = flaw_of(suite, language)
    if flaw is not None:
        raise InvalidSuite(f"tests.{flaw}")
    kind = KIND_OF[type(suite)]
    if kind not in languages.KINDS[language]:
        raise UnsupportedLanguage(f"{language} programs cannot be judged by {kind!r} suites")
    box.require(language)
    try:
        fences.checked(limits)
    except ValueError as error:
        raise InvalidSuite(str(error)) from None
    if isinstance(suite, PytestSuite | UnittestSuite):
        box.require_runner()
    total = size(suite)
    check_options(options, language, kind)
    text = program.source if suite is asked or not isinstance(asked, CheckSuite) else asked.prompt + program.source
    source = text.encode("utf-8", "surrogatepass")  # what is no UTF-8 the compiler will refuse
    if len(source) > fences.MAX_SOURCE_BYTES:
        raise InvalidSuite(f"the program takes {len(source)} bytes; at most {fences.MAX_SOURCE_BYTES} are allowed")

    def once() -> Report:
        return with_patience(
            lambda bounds: dispatch(source, language, suite, total, bounds, stop, box, options), limits, box
        )

    try:
        report = once()
        if options.check_determinism:
            second = once()
            differs = {"nondeterministic"} if essence(second) != essence(report) else set()
            report = replace(report, flags=tuple(sorted({*report.flags, *second.flags, *differs})))
        return report
    except OSError as error:  # no descriptors, no memory, no disk: never the program's fault
        raise SandboxError(f"the host fails the sandbox: {error}") from error


def check_options(options: Options, language: str, kind: str) -> None:
    """Raises InvalidOptions, naming the field. What every run of the language does anyway may be asked for."""
    if options.audit and language != "python":
        raise InvalidOptions(f"options.audit: only Python programs are watched, not {language}")
    if options.grading != "split" and kind not in CODE_KINDS:
        raise InvalidOptions(f"options.grading: only {', '.join(CODE_KINDS)} suites, not {kind!r}, have use for it")
    if options.grading != "split" and options.fresh_interpreter:
        raise InvalidOptions("options.fresh_interpreter: only with options.grading 'split'")


def with_patience(work: Callable[[Limits], Report], limits: Limits, box: Sandbox) -> Report:
    """Do it; if the host gave a run no CPU, once more from the start, longer, and alone among those that do so."""
    try:
        return work(limits)
    except Starved:
        with box.quiet():
            report = work(replace(limits, wall_s=min(PATIENCE * limits.wall, fences.MAX_WALL_S)))
        return replace(report, flags=tuple(sorted({*report.flags, "rerun_alone"})))


def essence(report: Report) -> object:
    """What two runs of a deterministic program have in common: verdicts and output, but no time and no memory."""
    return [(test.verdict, test.stdout) for test in report.tests], report.output


def dispatch(
    source: bytes, language: str, suite: Suite, total: int, limits: Limits, stop: Stop, box: Sandbox, options: Options
) -> Report:
    """One way of judging for each kind of suite."""
    if isinstance(suite, RunSuite | ScriptSuite):
        return run_only(source, language, suite, limits, box, options)
    if isinstance(suite, StdioSuite):
        compile_report, tests, flags = judge_stdio(source, language, suite, limits, stop, box, options)
        return conclude(tests, total, "bytes", box, compile_report, flags)
    if isinstance(suite, FunctionSuite):
        calls = calls_of(suite)
        tests, flags = judge_calls(box, source, suite.entry_point, calls, limits, stop.after_failures, options)
        return conclude(tests, total, "split", box, None, flags | hasty(tests, options))
    if isinstance(suite, CheckSuite):
        source = suite.prompt.encode("utf-8", "surrogatepass") + source
    return judge_code(box, source, suite, limits, stop, options)


def judge_code(
    box: Sandbox, source: bytes, suite: CodeSuite, limits: Limits, stop: Stop, options: Options
) -> Report:
    """Suites whose own code decides: by literal calls where they are no more, else with the control run before."""
    if isinstance(suite, AssertSuite) and options.grading != "together":
        entry_point = suite.entry_point or derived_entry_point(suite)
        calls = literal_calls(suite.asserts, suite.setup, entry_point)
        if calls is not None:
            with suppress(Undecided):
                tests, flags = judge_calls(box, source, entry_point, calls, limits, stop.after_failures, options)
                return conclude(tests, len(calls), SPLIT, box, None, flags | hasty(tests, options))
    plan = plan_of(suite)
    try:
        codec.dumps(told(plan))
    except codec.CodecError as error:
        raise InvalidSuite(f"the tests are too large: {error}") from None
    together = options.grading == "together"
    lenient = options.grading == "auto"
    control = control_of(
        box, box.controls, plan, limits, run=options.control, beyond=not together, lenient=lenient
    )
    plan["names"] = list(control.names)
    plan["uncounted"] = control.uncounted
    way = judge_shared if together else judge_tests
    tests, flags = way(box, source, plan, limits, stop.after_failures, options)
    name = SHARED if together else SPLIT
    if lenient and control.unjudgeable:
        for number in control.unjudgeable:
            if number < len(tests):
                tests[number], found = judge_number(box, source, plan, number, limits, options)
                flags |= found
        name = SHARED
        control = replace(control, unjudgeable={})
    tests = [marked(test, number, control) for number, test in enumerate(tests)]
    flags |= hasty(tests, options)
    return conclude(tests, num_tests(plan), name, box, None, flags, control.uncounted, control.names)


def marked(test: TestReport, number: int, control: Control) -> TestReport:
    """A test's report with its name and what the control run says of it."""
    name = control.names[number] if control.names else ""
    if number in control.unjudgeable:
        return replace(test, name=name, verdict=Verdict.UNJUDGEABLE, detail=sayable(control.unjudgeable[number]))
    if number in control.skipped:
        return replace(test, name=name, verdict=Verdict.SKIPPED, detail=sayable(control.skipped[number]))
    if number in control.vacuous:
        return replace(test, name=name, vacuous=True)
    return replace(test, name=name)


def hasty(tests: list[TestReport], options: Options) -> set[str]:
    """`early_exit`, of a program that is watched and was to answer."""
    early = options.audit and any(test.verdict is Verdict.NO_RESULT for test in tests)
    return {"early_exit"} if early else set()


def size(suite: Suite) -> int:
    if isinstance(suite, CheckSuite | PytestSuite | UnittestSuite | RunSuite | ScriptSuite):
        return 1
    total = len(suite.asserts) if isinstance(suite, AssertSuite) else len(suite.cases)
    if not total:
        raise InvalidSuite("the suite has no tests")
    if total > fences.MAX_TESTS:
        raise InvalidSuite(f"the suite has {total} tests; at most {fences.MAX_TESTS} are allowed")
    return total


def plan_of(suite: CodeSuite) -> dict[str, Any]:
    """What the test process is told: texts, and the files of a test file."""
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
            "helpers": suite.prompt,
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


@lru_cache(maxsize=64)
def derived_entry_point(suite: AssertSuite) -> str:
    """The function that the first test is about: the name it calls that neither Python nor the setup defines."""
    try:
        defined = defined_names(ast.parse(suite.setup))
        nodes = list(ast.walk(ast.parse(suite.asserts[0])))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidSuite(f"the tests cannot be used: {type(error).__name__}: {error}") from None
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    for name in [*called, *names]:
        if name not in defined and not hasattr(builtins, name):
            return name
    for name in called:
        return name
    raise InvalidSuite("no entry point: the first test uses nothing that a program could define")


def defined_names(tree: ast.AST) -> set[str]:
    """The names that a setup assigns, defines or imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def judge_stdio(
    source: bytes, language: str, suite: StdioSuite, limits: Limits, stop: Stop, box: Sandbox, options: Options
) -> tuple[CompileReport | None, list[TestReport], set[str]]:
    with ready(language, Text(source), limits, box, box.artifacts, options) as (job, report):
        if job is None:
            return report, [NOT_COMPILED], set()
        tests, flags = judge_cases(job, suite, stop, box, audit=options.audit)
        return report, tests, flags


def run_only(
    source: bytes, language: str, suite: RunSuite | ScriptSuite, limits: Limits, box: Sandbox, options: Options
) -> Report:
    """The report of one run whose exit code is all there is to judge; of a run without a test also what it left."""
    flags: set[str] = set()
    order = RunSuite() if isinstance(suite, ScriptSuite) else suite
    judged_by: JudgeName = "bytes" if order is suite else "shared_process"
    check_run(order)
    if options.fresh_interpreter and language == "python" and MAIN in {path_of(name) for name, _ in order.files}:
        raise InvalidOptions("options.fresh_interpreter: a file of the name main.py would be the program")
    if isinstance(suite, ScriptSuite) and options.control:

        def tried(program: str) -> TestReport | None:
            asked = combined(language, program.encode(), suite)
            with ready(language, asked, limits, box, box.artifacts, NO_OPTIONS) as (job, _):
                return None if job is None else run_once(job, RunSuite(), box)[0]

        check_script(box.controls, suite, language, tried)
    text = combined(language, source, suite) if isinstance(suite, ScriptSuite) else Text(source)
    with ready(language, text, limits, box, box.artifacts, options) as (job, compiled):
        if job is None:
            return conclude([NOT_COMPILED], 1, judged_by, box, compiled, flags)
        test, output, flags = run_once(job, order, box, audit=options.audit)
    report = conclude([test], 1, judged_by, box, compiled, flags)
    return replace(report, output=output) if order is suite else report


def judge_cases(
    job: Job, suite: StdioSuite, stop: Stop, box: Sandbox, *, audit: bool = False
) -> tuple[list[TestReport], set[str]]:
    reports: list[TestReport] = []
    flags: set[str] = set()
    failures = 0
    for case in suite.cases:
        if stop.after_failures is not None and failures >= stop.after_failures:
            break
        report, found = judge_case(job, case, suite, box, audit=audit)
        reports.append(report)
        flags |= found
        failures += report.verdict is not Verdict.PASSED
    return reports, flags


def conclude(
    tests: list[TestReport],
    total: int,
    judged_by: JudgeName,
    box: Sandbox,
    compile_report: CompileReport | None,
    flags: set[str],
    uncounted: frozenset[int] = frozenset(),
    names: tuple[str, ...] = (),
) -> Report:
    """The report of the tests that ran; the others are `skipped` and count as not passed.

    Tests that are `uncounted` (unjudgeable, skipped by the suite) are reported and have no part in the rest.
    """
    counted = [test.verdict for number, test in enumerate(tests) if number not in uncounted]
    verdict = worst(counted)
    skipped = [TestReport(Verdict.SKIPPED, detail="not run", name=name) for name in names[len(tests) : total]]
    skipped += [TestReport(Verdict.SKIPPED, detail="not run")] * (total - len(tests) - len(skipped))
    return Report(
        verdict=verdict,
        passed=sum(one is Verdict.PASSED for one in counted),
        total=total - len(uncounted),
        tests=(*tests, *skipped),
        judge=judged_by,
        isolation=box.level,
        compile=compile_report,
        flags=tuple(sorted(flags)),
    )


def worst(verdicts: list[Verdict]) -> Verdict:
    return min(verdicts, key=SEVERITY.index, default=Verdict.SKIPPED)
