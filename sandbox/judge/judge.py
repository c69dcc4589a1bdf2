"""A program against its suite: the one function that the service calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from plaudit.languages import UnsupportedKind, resolve
from sandbox import languages
from sandbox.errors import InvalidOptions, InvalidSuite, ModuleUnavailable, SandboxError, Starved
from sandbox.judge.bounds import shown_tail
from sandbox.judge.code_suites import judge_code
from sandbox.judge.entry_points import derived_entry_point, entry_point_of
from sandbox.judge.function_calls import judge_function_suite
from sandbox.judge.missing_modules import FLAG, missing_modules
from sandbox.judge.observe import judge_observed
from sandbox.judge.prelude import check_run as check_prelude_once
from sandbox.judge.prelude import joined, prompted
from sandbox.judge.python_jobs import script_job
from sandbox.judge.report import deterministic_part, with_flags
from sandbox.judge.report_limits import bounded
from sandbox.judge.request import JudgeRequest
from sandbox.judge.run_only import judge_run
from sandbox.judge.stdio import judge_stdio
from sandbox.judge.suite_checks import suite_flaw
from sandbox.judge.suite_kinds import CODE_KINDS, RUN_AS_MAIN, count_tests, kind_of, recognised
from sandbox.limits import MAX_SOURCE_BYTES, check_limits
from sandbox.run import JailRun, classify_exit
from sandbox.types import (
    NO_OPTIONS,
    AssertSuite,
    CheckSuite,
    FunctionSuite,
    Limits,
    ObserveSuite,
    Options,
    Program,
    PytestSuite,
    Report,
    RunSuite,
    ScriptSuite,
    StdioSuite,
    Stop,
    Suite,
    UnittestSuite,
)

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox


def judge(
    program: Program, suite: Suite, limits: Limits, stop: Stop, sandbox: Sandbox, options: Options = NO_OPTIONS
) -> Report:
    """Run the program against the suite and report. Blocks for the suite's budgets at most.

    Args:
        program: the untrusted program.
        suite: what it is judged by.
        limits: of each run, or of each test of a suite of code.
        stop: when to stop judging.
        sandbox: an open sandbox of this process, with nothing else running in it.
        options: what is asked beside a verdict.

    Returns:
        The report. Whatever the program does is a verdict in it.

    Raises:
        UnsupportedLanguage: the language is unknown, not installed, or has no such kind of suite.
        InvalidSuite: the suite cannot be used, or `limits` are out of range.
        InvalidOptions: an option that this program or kind of suite cannot have.
        ModuleUnavailable: `options.missing_modules` is `invalid` and the program imports what this host lacks.
        SandboxError: the sandbox failed; nothing is known of the program.
    """
    language = resolve(program.language)
    if isinstance(suite, AssertSuite | FunctionSuite | StdioSuite | ObserveSuite):
        count_tests(suite)
    asked, suite = suite, recognised(suite, language)
    if isinstance(suite, AssertSuite) and not suite.entry_point:
        derived_entry_point(suite)
    flaw = suite_flaw(suite, language)
    if flaw is not None:
        raise InvalidSuite(f"tests.{flaw}")
    kind = kind_of(suite)
    if kind not in languages.KINDS[language]:
        takes = ", ".join(sorted(languages.KINDS[language]))
        raise UnsupportedKind(f"{language} programs cannot be judged by {kind!r} suites; they take {takes}")
    sandbox.require(language)
    try:
        check_limits(limits)
    except ValueError as error:
        raise InvalidSuite(str(error)) from None
    if isinstance(suite, PytestSuite | UnittestSuite):
        sandbox.require_pytest()
    count_tests(suite)
    check_options(options, language, kind)
    if options.run_main is None:
        options = with_run_main(options, kind in RUN_AS_MAIN)
    text = program.source if suite is asked or not isinstance(asked, CheckSuite) else asked.prompt + program.source
    source = text.encode("utf-8", "surrogatepass")  # the compiler will reject what is not UTF-8
    if len(source) > MAX_SOURCE_BYTES:
        raise InvalidSuite(f"the program takes {len(source)} bytes; at most {MAX_SOURCE_BYTES} are allowed")

    prelude = "" if isinstance(suite, RunSuite) else suite.prelude
    source = joined(language, prelude, source, entry_point_of(suite) if prelude else "")
    request = JudgeRequest(sandbox, source, language, suite, limits, stop, options)

    def once() -> Report:
        if prelude and language == "python":
            check_prelude(prelude, sandbox)
        return retry_if_starved(lambda: dispatch(request), sandbox)

    try:
        report = once()
        if options.check_determinism:
            second = once()
            differs = ["nondeterministic"] if deterministic_part(second) != deterministic_part(report) else []
            report = replace(report, flags=with_flags(report.flags, *second.flags, *differs))
        return bounded(with_missing_modules(report, language, program.source, options))
    except OSError as error:  # no descriptors, no memory, no disk: never the program's fault
        raise SandboxError(f"the sandbox met an operating system error: {error}") from error
    except MemoryError as error:  # of a suite or of our own; what an answer takes is judged where it is compared
        raise SandboxError("the judge has reached its memory limit: raise executor_memory_mb") from error


def dispatch(request: JudgeRequest) -> Report:
    """One way of judging for each kind of suite."""
    suite = request.suite
    if isinstance(suite, RunSuite | ScriptSuite):
        return judge_run(request, suite)
    if isinstance(suite, StdioSuite):
        return judge_stdio(request, suite)
    if isinstance(suite, FunctionSuite):
        return judge_function_suite(request, suite)
    if isinstance(suite, ObserveSuite):
        return judge_observed(request, suite)
    if isinstance(suite, CheckSuite):
        request = replace(request, source=prompted(suite.prompt, request.source))
    return judge_code(request, suite)


@lru_cache(maxsize=64)
def with_run_main(options: Options, run_main: bool) -> Options:
    return replace(options, run_main=run_main)


def with_missing_modules(report: Report, language: str, source: str, options: Options) -> Report:
    """The report, flagged with the modules that the program imports and this host lacks. Raises ModuleUnavailable."""
    missing = missing_modules(language, source.encode("utf-8", "surrogatepass"), report.tests)
    if not missing:
        return report
    if options.missing_modules == "invalid":
        raise ModuleUnavailable(missing)
    return replace(report, flags=with_flags(report.flags, *(FLAG + module for module in missing)))


def check_prelude(prelude: str, sandbox: Sandbox) -> None:
    """Raises InvalidSuite for a Python prelude that does not run by itself, which is the suite's fault."""

    def run_alone(text: bytes) -> str:
        with JailRun(sandbox, script_job(text, Limits(cpu_s=10), NO_OPTIONS)) as run:
            run.finish()
            outcome = classify_exit(run)
            return (
                "" if outcome.verdict is None else shown_tail(bytes(run.stderr.data)).strip()[-300:] or outcome.detail
            )

    check_prelude_once(prelude, run_alone)


def check_options(options: Options, language: str, kind: str) -> None:
    """Raises InvalidOptions, naming the field. An option that the language always has may be set."""
    if options.audit and language != "python":
        raise InvalidOptions(f"options.audit: only Python programs are watched, not {language}")
    if options.run_main is not None and language != "python":
        raise InvalidOptions(f"options.run_main: only Python programs have a __main__ guard, not {language}")
    if options.hash_seed is not None and (language != "python" or not options.fresh_interpreter):
        raise InvalidOptions("options.hash_seed: only of Python programs with options.fresh_interpreter")
    if options.grading != "split" and kind not in CODE_KINDS:
        raise InvalidOptions(f"options.grading: only {', '.join(CODE_KINDS)} suites, not {kind!r}, have use for it")
    if options.grading != "split" and options.fresh_interpreter:
        raise InvalidOptions("options.fresh_interpreter: only with options.grading 'split'")


def retry_if_starved(work: Callable[[], Report], sandbox: Sandbox) -> Report:
    """Do the work. If the host gave a run no CPU, do it once more from the start, within the same limits."""
    try:
        return work()
    except Starved:
        with sandbox.last_attempt():
            report = work()
        return replace(report, flags=with_flags(report.flags, "rerun_alone"))
