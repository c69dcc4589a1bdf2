"""Checkers: a suite's own program decides whether an output is right, in its own jail, after the judged program ended.

- It starts with `input.txt`, `output.txt` and `answer.txt` in its working folder, and their names as its arguments, in
  this order (testlib's). What it says is read in `checker_verdicts.py`. C++ finds our `testlib.h`.
- Its time and memory never count as the program's. Its jails have a uid of their own and never run a judged program.
- A checker is tried once per suite, without a judged program (`try_out`). It must accept each case's own answer. If it
  accepts meaningless text, the case is vacuous. Only this trial can make a suite invalid: a checker that breaks on an
  output later breaks because of that output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from plaudit.languages import UnsupportedLanguage, resolve
from sandbox.errors import InvalidSuite
from sandbox.jail_job import JailJob
from sandbox.judge.build import ProgramText, ready
from sandbox.judge.checker_verdicts import CheckerVerdict, TriedCheckers, checker_verdict
from sandbox.judge.request import JudgeRequest
from sandbox.judge.stdio_cases import answers_of
from sandbox.judge.streams import encoded
from sandbox.judge.working_files import FOLDER, path_of
from sandbox.language_specs import BY_NAME
from sandbox.limits import MAX_SOURCE_BYTES, MB
from sandbox.run import JailRun, Starter
from sandbox.types import Limits, Program, RunSuite, StdioCase, StdioSuite, Stop

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

INPUT, OUTPUT, ANSWER = "input.txt", "output.txt", "answer.txt"
MIN_CPU_S = 10.0  # what a checker or interactor may use at least, whatever the program may
MIN_MEMORY_MB = 512
MIN_OUTPUT_KB = 64
# Of a control program that answers nothing. Whoever takes both takes anything.
NONSENSE, SILENCE = b"~ no answer ~\n", b""
TESTLIB = Path(__file__).parent / "testlib.h"


@cache
def testlib() -> bytes:
    return TESTLIB.read_bytes()


def helper_limits(limits: Limits) -> Limits:
    """Limits of a checker: at least the program's, so that it can read all output, and at least `MIN_CPU_S`."""
    cpu_s = max(limits.cpu_s, MIN_CPU_S)
    return Limits(
        cpu_s=cpu_s,
        wall_s=2 * cpu_s + 2,
        memory_mb=max(limits.memory_mb, MIN_MEMORY_MB),
        output_kb=MIN_OUTPUT_KB,
        processes=limits.processes,
    )


@contextmanager
def helper_job(who: str, program: Program, limits: Limits, sandbox: Sandbox) -> Iterator[JailJob]:
    """The job of a checker or an interactor, compiled once. Raises InvalidSuite if it does not compile."""
    try:
        language = resolve(program.language)
        sandbox.require(language)
    except UnsupportedLanguage as error:
        raise UnsupportedLanguage(f"the {who}: {error}") from None
    source = program.source.encode("utf-8", "surrogatepass")
    if len(source) > MAX_SOURCE_BYTES:
        raise InvalidSuite(f"the {who} takes {len(source)} bytes; at most {MAX_SOURCE_BYTES} are allowed")
    beside = (("testlib.h", testlib()),) if BY_NAME[language].source.endswith(".cpp") else ()
    request = JudgeRequest(sandbox, source, language, RunSuite(), limits, Stop())
    with ready(request, ProgramText(source, beside)) as (job, report):
        if job is None:
            message = "" if report is None else (report.stderr or report.stdout).strip()
            raise InvalidSuite(f"the {who} does not compile: {message[:2000]}")
        yield replace(job, jail_kind="helpers")


def with_case(job: JailJob, case: StdioCase, output: bytes) -> JailJob:
    """The job with the three files of a case, its own files beside them, and room for all of it."""
    answers = answers_of(case)
    texts = [
        (INPUT, encoded(case.stdin, "a case's stdin")),
        (OUTPUT, output),
        (ANSWER, encoded(answers[0], "a case's stdout")),
    ]
    given = [(FOLDER + name, content) for name, content in texts]
    taken = {path for path, _ in (*job.files, *given)} | {f"{FOLDER}main.py"}
    more = [(path_of(name), content) for name, content in case.files if path_of(name) not in taken]
    size = sum(len(content) for _, content in (*given, *more))
    room = -(-size // (16 * MB)) * 16 * MB  # in steps: a change of size costs a remount
    jail_limits = replace(
        job.limits,
        memory_bytes=job.limits.memory_bytes + size,
        tmp_bytes=max(job.limits.tmp_bytes, 32 * MB + room),
    )
    argv = (*job.argv, *(name for name, _ in texts))
    return replace(job, argv=argv, files=(*job.files, *given, *more), limits=jail_limits)


class Helper(Protocol):
    """A checker or an interactor, ready to run."""

    @property
    def who(self) -> str:
        """Its word in messages."""

    def control(self, case: StdioCase, output: bytes) -> CheckerVerdict:
        """Its verdict on a program that outputs exactly `output`."""

    def takes_answer(self) -> bool:
        """Whether a case's answer is an output that must be accepted."""


@dataclass(frozen=True, slots=True)
class Checker:
    """One suite's checker, ready to run."""

    job: JailJob
    starter: Starter
    who: str = "checker"

    def rule(self, case: StdioCase, output: bytes) -> CheckerVerdict:
        with JailRun(self.starter, with_case(self.job, case, output), purpose="checker") as run:
            run.finish()
            return checker_verdict(run, speaks=True)

    def control(self, case: StdioCase, output: bytes) -> CheckerVerdict:
        return self.rule(case, output)

    def takes_answer(self) -> bool:
        return True


def vacuous_cases(helper: Helper, suite: StdioSuite, limits: Limits, sandbox: Sandbox) -> frozenset[int]:
    """The numbers of the vacuous cases. Raises InvalidSuite; the result is remembered."""
    tried_checkers = sandbox.cached(TriedCheckers)
    key = key_of(helper.who, suite, limits)
    trial = tried_checkers.get(key)
    if trial is None:
        try:
            trial = try_out(helper, suite)
        except TransientFailure:
            raise
        except InvalidSuite as error:
            tried_checkers.keep(key, str(error))
            raise
        tried_checkers.keep(key, trial)
    if isinstance(trial, str):
        raise InvalidSuite(trial)
    return trial


class TransientFailure(InvalidSuite):
    """The suite cannot be used for a reason that may not recur. Not remembered."""


def try_out(helper: Helper, suite: StdioSuite) -> frozenset[int]:
    """Try each case's own answer, then meaningless text. Raises InvalidSuite, naming case and reason."""
    vacuous = {at for at, case in enumerate(suite.cases) if is_vacuous(helper, case, at)}
    if len(vacuous) == len(suite.cases):
        raise InvalidSuite(
            f"the {helper.who} accepts anything: in every case it accepts a program that says {NONSENSE.decode()!r} "
            "and one that says nothing. Exit code 0 accepts, unless a checker's last line on stdout is a number in "
            "[0, 1], its score; exit code 1 refuses"
        )
    return frozenset(vacuous)


def is_vacuous(helper: Helper, case: StdioCase, at: int) -> bool:
    answer = answers_of(case)[0]
    vouched = helper.takes_answer() and bool(answer.strip())
    if vouched:
        own = helper.control(case, encoded(answer, "a case's stdout"))
        if own.unloadable:
            raise broken(f"the {helper.who} cannot be loaded", own)
        if not own.accepted:
            raise broken(f"cases.{at}: the {helper.who} {outcome(own)} on the case's own stdout as output", own)
    nonsense = helper.control(case, NONSENSE)
    if nonsense.unloadable and not vouched:  # else its text loads, and it is the nonsense that it cannot read
        raise broken(f"the {helper.who} cannot be loaded", nonsense)
    if not nonsense.accepted and (vouched or not nonsense.failed):
        return False
    silence = helper.control(case, SILENCE)
    if not vouched and nonsense.failed and silence.failed:
        raise broken(f"cases.{at}: the {helper.who} says that it failed, whatever the program says", silence)
    return nonsense.accepted and silence.accepted


def outcome(own: CheckerVerdict) -> str:
    if own.score is None:
        return "says that it failed" if own.failed else "breaks"
    return "refuses" if own.score == 0 else f"gives {own.score:g}"


def broken(what: str, verdict: CheckerVerdict) -> InvalidSuite:
    kind = TransientFailure if verdict.transient else InvalidSuite
    hint = "; options.control: false judges without this trial" if verdict.score is not None else ""
    return kind(f"{what}: {verdict.message or 'it gives no reason'}{hint}")


def key_of(who: str, suite: StdioSuite, limits: Limits) -> bytes:
    """The identity of a trial: every part by its length, so that no two trials can say the same."""
    helper = suite.checker if who == "checker" else suite.interactor
    assert helper is not None
    state = hashlib.sha256()

    def add(part: bytes) -> None:
        state.update(len(part).to_bytes(8, "big") + part)

    for text in (who, helper.language, helper.source, repr(limits)):
        add(text.encode("utf-8", "surrogatepass"))
    for case in suite.cases:
        for text in (case.stdin, *answers_of(case)):
            add(encoded(text, "a case's stdin or stdout"))
        state.update(len(case.files).to_bytes(8, "big"))
        for name, content in case.files:
            add(name.encode("utf-8", "surrogatepass"))
            add(content)
    return state.digest()
