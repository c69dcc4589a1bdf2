"""The values that enter and leave the sandbox: a program, its suite, its limits, and the report that comes back.

Plain frozen dataclasses over builtin types, so that they travel through any queue and need no library to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plaudit.grading import Compare, Grading, Judge, Level, MissingModules, Position, Verdict


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one run. `cpu_s` decides `time_limit`; `wall_s` is the safety net (None: max(2·cpu+2, 3·cpu))."""

    cpu_s: float = 5.0
    wall_s: float | None = None
    memory_mb: int = 512
    output_kb: int = 1024
    processes: int = 64

    @property
    def wall(self) -> float:
        return self.wall_s if self.wall_s is not None else max(2 * self.cpu_s + 2, 3 * self.cpu_s)


@dataclass(frozen=True, slots=True)
class Program:
    language: str
    source: str


@dataclass(frozen=True, slots=True)
class AssertSuite:
    """Python asserts, each judged on its own. The program's callables are seen through proxies (split grading).

    `setup` is what the tests see before their first line, `prelude` what the program sees before its own; so in every
    suite that has them.
    """

    asserts: tuple[str, ...]
    setup: str = ""
    entry_point: str | None = None
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One call of the entry point: JSON-like arguments and the value expected back; `also` are right, too."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: Any
    also: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionSuite:
    entry_point: str
    cases: tuple[Case, ...]
    rel_tol: float | None = None
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class CheckSuite:
    """HumanEval form: `test` defines `check(candidate)`; `prompt`, if given, is put before the program."""

    test: str
    entry_point: str
    prompt: str = ""
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class ModuleSuite:
    """A test file that imports or just uses the program's names. One verdict per test, under its runner's name for it.

    `files` (name, content) lie in the working folder of the tests. `entry_point`, if given, must be there.
    """

    source: str
    files: tuple[tuple[str, bytes], ...] = ()
    entry_point: str | None = None
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class PytestSuite(ModuleSuite):
    """Test functions and classes, run by pytest."""


@dataclass(frozen=True, slots=True)
class UnittestSuite(ModuleSuite):
    """TestCase classes, run by unittest."""


@dataclass(frozen=True, slots=True)
class StdioCase:
    """`stdout`: the right answer, or several, each of them right. `files` (name, content) lie in the program's working
    folder before it starts.
    """

    stdin: str
    stdout: str | tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class StdioSuite:
    """Runs on standard input. `checker` or `interactor`, at most one of them, takes the place of `compare`.

    `checker`: a program that reads input, output and answer, and accepts, scores or rejects (`judge/checkers.py`).
    `interactor`: a program joined to the judged one by pipes (`judge/interactors.py`).
    """

    cases: tuple[StdioCase, ...]
    compare: Compare = "rstrip"
    rel_tol: float | None = None
    checker: Program | None = None
    interactor: Program | None = None
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class ScriptSuite:
    """MultiPL-E form: one test, passed if program and `source` together, compiled and run, end with exit code 0.

    `append`: one text, the program first. `replace`: `source` alone is the main file, and the program lies beside it
    under the name `program` with the language's ending, to be imported, included or called.
    """

    source: str
    position: Position = "append"
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class RunSuite:
    """No test: one run on this stdin, and what it printed is the answer (`Report.output`).

    `files` (name, content) lie in the program's working folder before it starts, and where its compiler runs; `fetch`
    names files there that are read back after it has ended; `args` are the program's arguments.
    """

    stdin: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    fetch: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedCall:
    """One input, and the answer where it is known: `arguments` and `expected` of a function, or `stdin` and `stdout`.

    `arguments`: the arguments of the call as Python source, literals only: "[1, 2], k=3". `expected`: a literal, too.
    `tolerance`: how far a number may be from `expected`; without it nine digits have to be equal.
    """

    arguments: str = ""
    expected: str | None = None
    tolerance: float | None = None
    stdin: str | None = None
    stdout: str | None = None


@dataclass(frozen=True, slots=True)
class ObserveSuite:
    """Inputs on which a program is watched: what it answers to each is the outcome of the test (`TestReport.outcome`).

    An internal kind: `POST /execute` does not take it. With an `entry_point` one process makes all calls; without, the
    program runs once per call on its `stdin`. `call_cpu_s` limits each call, `budget_cpu_s` all of them together.
    `Report.cpu_ms` says what observing the program cost.
    """

    entry_point: str | None
    calls: tuple[ObservedCall, ...]
    prelude: str = ""
    call_cpu_s: float = 0.25
    budget_cpu_s: float = 0.75


Suite = (
    AssertSuite
    | FunctionSuite
    | CheckSuite
    | PytestSuite
    | UnittestSuite
    | StdioSuite
    | ScriptSuite
    | RunSuite
    | ObserveSuite
)


@dataclass(frozen=True, slots=True)
class TestReport:
    """The result of one test. Times in milliseconds of the candidate's processes; stdout and stderr are shortened."""

    verdict: Verdict
    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    peak_memory_mb: float = 0.0
    stdout: str = ""
    stderr: str = ""
    detail: str = ""  # a reason a person can read: the exception, the limit that fired, what could not be split
    name: str = ""  # of a test that has one: of the kinds `pytest` and `unittest`
    vacuous: bool = False  # it passes for a program that answers nothing, so it says nothing of this one
    score: float | None = None  # in [0, 1], where a checker or an interactor gives one
    outcome: str = ""  # of an observed call, short: `v:` and a digest of its value, or what came instead

    __test__ = False  # not a test class, whatever pytest thinks of its name


@dataclass(frozen=True, slots=True)
class CompileReport:
    ok: bool
    wall_ms: float
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Output:
    """What one run left behind, whole up to its limits. Either `exit_code` or `signal` says how it ended."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Report:
    """A program against its suite. `pass_rate` divides by all tests sent, skipped ones included.

    `output` is there for a `RunSuite` whose program ran; `passed` then means that it ended with exit code 0. `cpu_ms`
    is there for an `ObserveSuite`: CPU time of the program, of its jail on its behalf, and of the judge.
    """

    verdict: Verdict
    passed: int
    total: int
    tests: tuple[TestReport, ...]
    judge: Judge
    isolation: Level
    compile: CompileReport | None = None
    flags: tuple[str, ...] = ()
    output: Output | None = None
    cpu_ms: float = 0.0

    @property
    def pass_rate(self) -> float:
        return self.passed / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Options:
    """Requests beside a verdict. They are part of a result's identity; the defaults request nothing."""

    fresh_interpreter: bool = False  # a new Python process is started (execve) instead of forked from a warm one
    grading: Grading = "split"  # `together`: program and tests in one process, forgeable. `auto`: where it is needed
    run_main: bool | None = None  # whether the program's `__main__` guard runs; None: as its kind of suite has it
    control: bool = True  # whether suites of code are first tried on a program that answers nothing
    missing_modules: MissingModules = "failure"  # of a program that imports what this host lacks
    check_determinism: bool = False  # everything twice; flag `nondeterministic` where the two differ
    audit: bool = False  # flags for what the program was seen doing (`judge/audit.py`)
    hash_seed: int | None = None  # PYTHONHASHSEED of the program's fresh interpreter; None: 0, as everywhere


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Stop:
    """When to stop judging: after this many failed tests (None: never). The rest are `skipped`."""

    after_failures: int | None = None
