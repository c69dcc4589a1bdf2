"""A program against its suite: the one function that the service calls."""

from __future__ import annotations

import ast
import builtins
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from plaudit.grading import SEVERITY, Verdict
from plaudit.grading import Judge as JudgeName
from plaudit.languages import UnsupportedLanguage, resolve
from sandbox import languages
from sandbox import limits as fences
from sandbox.errors import InvalidOptions, InvalidSuite, ModuleUnavailable, SandboxError, Starved
from sandbox.jail import Job
from sandbox.judge.build import Text, ready
from sandbox.judge.checkers import Checker, helper_job, helper_limits, tried
from sandbox.judge.control_run import Control, control_of
from sandbox.judge.function_calls import Undecided, calls_of, judge_calls
from sandbox.judge.in_process_tests import judge_number, judge_shared
from sandbox.judge.interactors import Interactor
from sandbox.judge.isolated_tests import check_plan, judge_tests, num_tests
from sandbox.judge.literal_asserts import literal_calls
from sandbox.judge.missing_modules import FLAG, missing_modules
from sandbox.judge.prelude import check_run as check_prelude_once
from sandbox.judge.prelude import joined, prompted
from sandbox.judge.report_limits import bounded
from sandbox.judge.run_only import MAIN, check_run, given_files, path_of, run_once
from sandbox.judge.script import combined
from sandbox.judge.script_control import check_script
from sandbox.judge.stdio import judge_case, script_job
from sandbox.judge.stdio_cases import check_cases, with_files
from sandbox.judge.suite_analysis import check_entry_point, complete_part
from sandbox.judge.suite_checks import flaw_of
from sandbox.judge.suite_kinds import recognised
from sandbox.judge.truncate import sayable, shown_tail
from sandbox.run import Run, fate
from sandbox.types import (
    NO_OPTIONS,
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
)

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

SPLIT: JudgeName = "split"
SHARED: JudgeName = "shared_process"
LEANED: JudgeName = "program_methods"  # some passed test rests on methods of the program's own objects
AGAIN = 0.2  # the share of one wall limit that a suite may have taken and still be run from its start

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

RUN_AS_MAIN = ("stdio", "script")  # the kinds that run a program; the others load it as a module and ask it

CODE_KINDS = ("assert", "check", "pytest", "unittest")  # of tests that could be in the program's own process
NOT_COMPILED = TestReport(Verdict.COMPILE_ERROR, detail="the program does not compile")


def judge(
    program: Program, suite: Suite, limits: Limits, stop: Stop, box: Sandbox, options: Options = NO_OPTIONS
) -> Report:
    """Run the program against the suite and report. Blocks for the suite's budgets at most; never hangs.

    Raises UnsupportedLanguage, InvalidSuite (also for limits out of range), InvalidOptions, and SandboxError for our
    own faults.
    """
    language = resolve(program.language)
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
    if options.run_main is None:
        options = settled(options, kind in RUN_AS_MAIN)
    text = program.source if suite is asked or not isinstance(asked, CheckSuite) else asked.prompt + program.source
    source = text.encode("utf-8", "surrogatepass")  # what is no UTF-8 the compiler will refuse
    if len(source) > fences.MAX_SOURCE_BYTES:
        raise InvalidSuite(f"the program takes {len(source)} bytes; at most {fences.MAX_SOURCE_BYTES} are allowed")

    prelude = "" if isinstance(suite, RunSuite) else suite.prelude
    source = joined(language, prelude, source, entry_point_of(suite) if prelude else "")

    def once() -> Report:
        if prelude and language == "python":
            check_prelude(prelude, box)
        return with_patience(
            lambda bounds: dispatch(source, language, suite, total, bounds, stop, box, options), limits, box
        )

    try:
        report = once()
        if options.check_determinism:
            second = once()
            differs = {"nondeterministic"} if essence(second) != essence(report) else set()
            report = replace(report, flags=tuple(sorted({*report.flags, *second.flags, *differs})))
        return bounded(with_missing(report, language, program.source, options))
    except OSError as error:  # no descriptors, no memory, no disk: never the program's fault
        raise SandboxError(f"the host fails the sandbox: {error}") from error
    except MemoryError as error:  # of a suite or of our own: what an answer takes is judged where it is weighed
        raise SandboxError("the judge has reached its memory limit (executor_memory_mb)") from error


@lru_cache(maxsize=64)
def settled(options: Options, run_main: bool) -> Options:
    return replace(options, run_main=run_main)


def with_missing(report: Report, language: str, source: str, options: Options) -> Report:
    """The report, flagged with the modules that the program imports and this host lacks. Raises ModuleUnavailable."""
    missing = missing_modules(language, source.encode("utf-8", "surrogatepass"), report.tests)
    if not missing:
        return report
    if options.missing_modules == "invalid":
        raise ModuleUnavailable(missing)
    return replace(report, flags=tuple(sorted({*report.flags, *(FLAG + module for module in missing)})))


def check_prelude(prelude: str, box: Sandbox) -> None:
    """Raises InvalidSuite for a prelude of Python that does not run alone: then no program is to blame."""

    def run_alone(text: bytes) -> str:
        with Run(box, script_job(text, Limits(cpu_s=10), NO_OPTIONS)) as run:
            run.finish()
            end = fate(run)
            return "" if end.verdict is None else shown_tail(bytes(run.stderr.data)).strip()[-300:] or end.detail

    check_prelude_once(prelude, run_alone)


def entry_point_of(suite: Suite) -> str:
    """The name that a suite asks of the program; empty where it asks for none."""
    if isinstance(suite, AssertSuite):
        return suite.entry_point or derived_entry_point(suite)
    return getattr(suite, "entry_point", None) or ""


def check_options(options: Options, language: str, kind: str) -> None:
    """Raises InvalidOptions, naming the field. What every run of the language does anyway may be asked for."""
    if options.audit and language != "python":
        raise InvalidOptions(f"options.audit: only Python programs are watched, not {language}")
    if options.run_main is not None and language != "python":
        raise InvalidOptions(f"options.run_main: only Python programs have a __main__ guard, not {language}")
    if options.grading != "split" and kind not in CODE_KINDS:
        raise InvalidOptions(f"options.grading: only {', '.join(CODE_KINDS)} suites, not {kind!r}, have use for it")
    if options.grading != "split" and options.fresh_interpreter:
        raise InvalidOptions("options.fresh_interpreter: only with options.grading 'split'")


def with_patience(work: Callable[[Limits], Report], limits: Limits, box: Sandbox) -> Report:
    """Do it; if the host gave a run no CPU, once more from the start, within the same limits."""
    try:
        return work(limits)
    except Starved:
        with box.final():
            report = work(limits)
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
        source = prompted(suite.prompt, source)
    return judge_code(box, source, suite, limits, stop, options)


def judge_code(box: Sandbox, source: bytes, suite: CodeSuite, limits: Limits, stop: Stop, options: Options) -> Report:
    """Suites whose own code decides: by literal calls where they are no more, else with the control run before."""
    check_entry_point(KIND_OF[type(suite)], suite.entry_point or "f")
    began, flags = time.monotonic(), set[str]()
    decided: tuple[TestReport, ...] = ()
    if isinstance(suite, AssertSuite) and options.grading != "together":
        entry_point = suite.entry_point or derived_entry_point(suite)
        calls = literal_calls(suite.asserts, suite.setup, entry_point)
        if calls is not None:
            try:
                tests, flags = judge_calls(box, source, entry_point, calls, limits, stop.after_failures, options)
                return conclude(tests, len(calls), SPLIT, box, None, flags | hasty(tests, options))
            except Undecided as undecided:
                # The tests begin again in a process of their own, with whatever state the program keeps between them;
                # but where much time has gone already, what has been decided stands.
                flags = set(undecided.flags)
                if time.monotonic() - began > AGAIN * limits.wall:
                    decided = tuple(undecided.reports)
    plan = plan_of(suite)
    check_plan(plan)
    together = options.grading == "together"
    lenient = options.grading == "auto"
    control = control_of(box, box.controls, plan, limits, run=options.control, beyond=not together, lenient=lenient)
    plan["names"] = list(control.names)
    plan["uncounted"] = control.uncounted
    if together:
        tests, found = judge_shared(box, source, plan, limits, stop.after_failures, options)
    else:
        tests, found = judge_tests(box, source, plan, limits, stop.after_failures, options, decided)
    flags |= found
    name = SHARED if together else LEANED if LEANED in flags else SPLIT
    flags -= {LEANED}
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
    return replace(test, name=name) if name else test


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
    check_cases(suite, limits)
    with (
        refereed(suite, limits, box, options) as (referee, vacuous),
        ready(language, Text(source), limits, box, box.artifacts, options) as (job, report),
    ):
        if job is None:
            return report, [NOT_COMPILED], set()
        tests, flags = judge_cases(job, suite, stop, box, referee, audit=options.audit)
        if vacuous:
            tests = [replace(test, vacuous=at in vacuous) for at, test in enumerate(tests)]
        return report, tests, flags


@contextmanager
def refereed(
    suite: StdioSuite, limits: Limits, box: Sandbox, options: Options
) -> Iterator[tuple[Checker | Interactor | None, frozenset[int]]]:
    """Who decides instead of a comparison, tried before any program is judged; and which cases are vacuous."""
    program = suite.checker or suite.interactor
    if program is None:
        yield None, frozenset()
        return
    bounds = helper_limits(limits)
    with helper_job("checker" if suite.checker else "interactor", program, bounds, box) as job:
        referee = Checker(job, box) if suite.checker else Interactor(job, box)
        yield referee, tried(referee, suite, bounds, box) if options.control else frozenset()


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
    if order.args and options.fresh_interpreter and options.audit:
        raise InvalidOptions("options.fresh_interpreter: not with options.audit and args; leave out one of the three")
    if isinstance(suite, ScriptSuite) and options.control:

        def tried_alone(program: str) -> TestReport | None:
            asked = combined(language, program.encode(), suite)
            with ready(language, asked, limits, box, box.artifacts, NO_OPTIONS) as (job, _):
                return None if job is None else run_once(job, RunSuite(), box)[0]

        check_script(box.controls, suite, language, tried_alone)
    text = Text(source, given=given_files(order))
    if isinstance(suite, ScriptSuite):
        text = combined(language, source, suite)
    with ready(language, text, limits, box, box.artifacts, options) as (job, compiled):
        if job is None:
            return conclude([NOT_COMPILED], 1, judged_by, box, compiled, flags)
        test, output, flags = run_once(job, order, box, audit=options.audit)
    report = conclude([test], 1, judged_by, box, compiled, flags)
    return replace(report, output=output) if order is suite else report


def judge_cases(
    job: Job,
    suite: StdioSuite,
    stop: Stop,
    box: Sandbox,
    referee: Checker | Interactor | None = None,
    *,
    audit: bool = False,
) -> tuple[list[TestReport], set[str]]:
    reports: list[TestReport] = []
    flags: set[str] = set()
    failures = 0
    for at, case in enumerate(suite.cases):
        if stop.after_failures is not None and failures >= stop.after_failures:
            break
        case_job = with_files(job, case, at)
        if isinstance(referee, Interactor):
            report, found = referee.judge_case(case_job, case, audit=audit)
        else:
            rule = None if referee is None else partial(referee.rule, case)
            report, found = judge_case(case_job, case, suite, box, audit=audit, rule=rule)
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
