"""Split grading: the tests in one jail, the program in another, values between them, the verdict here.

For `assert` and `check` suites a test process T (role `tests`) drives the candidate's process C (role `serve`) over a
socket that only those two hold, and tells this process the verdict of each test over another. For `function` suites
there is no T: this process sends the arguments itself and compares what comes back (`calls.py`).

A test that outlives its budget, or in which C ends, costs its own verdict only: both processes are thrown away and a
fresh pair goes on with the next test. Not promised: that state which the program kept between tests survives this.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plaudit.grading import SEVERITY, Verdict
from sandbox import languages
from sandbox import limits as fences
from sandbox.cgroup import Counters
from sandbox.errors import InvalidSuite, SandboxError
from sandbox.jail import Job
from sandbox.judge import bounds, codec
from sandbox.judge.audit import Watch
from sandbox.judge.prelude import parted
from sandbox.judge.stdio import fresh_job
from sandbox.judge.suite_analysis import read
from sandbox.judge.truncate import sayable, shown_head, shown_tail
from sandbox.run import Fate, Run, Starter, fate, flags, over_cpu, over_memory, over_output, pump
from sandbox.types import Limits, Options, TestReport

MODULE_KINDS = ("pytest", "unittest")  # a test file, whose tests have names
OF_THE_HOST = ("names", "uncounted")  # parts of a plan that the test process is not told
SURELY_SMALL = 1 << 18  # characters of tests whose plan is no message that is too large, whatever is in them
LOST_S = 2.0  # how long after the loss of C its end may take to be told


class Channel:
    """Frames to and from a jailed process, read without ever waiting for it, none longer than `most` bytes."""

    def __init__(self, sock: socket.socket, most: int = bounds.MAX_MESSAGE_BYTES) -> None:
        self.sock = sock
        self.most = most
        self.pending = bytearray()
        self.closed = False
        sock.setblocking(False)

    def fileno(self) -> int:
        return self.sock.fileno()

    def fill(self) -> None:
        try:
            while len(self.pending) < self.most + 64:
                part = self.sock.recv(1 << 18)
                if not part:
                    self.closed = True
                    return
                self.pending += part
        except BlockingIOError:
            return
        except OSError:
            self.closed = True

    def frame(self) -> bytes | None:
        """One whole frame, if it is there. Raises CodecError for one that is announced as too long."""
        if len(self.pending) < 4:
            return None
        size = int.from_bytes(self.pending[:4], "big")
        if size > self.most:
            raise codec.CodecError(f"a message of {size} bytes was announced; at most {self.most} are read")
        if len(self.pending) < 4 + size:
            return None
        data = bytes(self.pending[4 : 4 + size])
        del self.pending[: 4 + size]
        return data

    def close(self) -> None:
        self.sock.close()


class Meter:
    """What one test used: the candidate's counters between two moments."""

    def __init__(self, run: Run, counted: Counters | None = None) -> None:
        """`counted`: how the counters stand now, where that has just been read."""
        self.run = run
        self.counted = counted or self.count()
        self.last: Counters | None = None  # read when the answer was weighed
        self.cpu_ns, self.oom_kills = self.counted.cpu_ns, self.counted.oom_kills
        run.box.restart_peak()
        self.began = time.monotonic()

    def count(self) -> Counters:
        if not self.run.box.is_counted():
            self.run.box.cpu_ns()  # the counters are those of the last look
        return self.run.counters()

    def next(self) -> Meter:
        """The meter of the test that follows the one reported."""
        return Meter(self.run, self.counted)

    def overruled(self, end: Fate) -> Fate:
        """An answer counts only within all limits: a child may have died for memory, a flood be still in the pipe."""
        self.run.drain()
        ends = [end]
        counters = self.last = self.count()
        if counters.oom_kills > self.oom_kills:
            ends.append(over_memory(self.run))
        if self.run.stdout.overflowed:
            ends.append(over_output(self.run))
        if self.run.box.cpu_ns() > self.run.budget.cpu_ns:  # the clock looks every few milliseconds only
            ends.append(over_cpu(self.run))
        return end if len(ends) == 1 else min(ends, key=lambda one: SEVERITY.index(one.verdict or Verdict.NO_RESULT))

    def report(self, verdict: Verdict, detail: str) -> TestReport:
        counters = self.counted = self.last or self.run.counters()
        return TestReport(
            verdict=verdict,
            cpu_ms=round((counters.cpu_ns - self.cpu_ns) / 1e6, 3),
            wall_ms=round(1000 * (time.monotonic() - self.began), 3),
            peak_memory_mb=round(counters.peak_memory_bytes / fences.MB, 1),
            stdout=shown_head(self.run.stdout.take()),
            stderr=shown_tail(self.run.stderr.take()),
            detail=bounds.text(sayable(bounds.text(detail, bounds.MAX_DETAIL)), bounds.MAX_DETAIL),
        )


def serve_job(source: bytes, limits: Limits, num_tests: int, wire: int, options: Options) -> Job:
    name = "__main__" if options.run_main else "main"
    if options.fresh_interpreter:
        fresh = fresh_job("audited_serve" if options.audit else "serve", source, limits, name)
        return replace(fresh, fds={3: wire}, num_budgets=num_tests + 1)
    prelude, program = parted(source)
    return Job(
        role="audited_serve" if options.audit else "serve",
        name=name,
        argv=("/tmp/main.py",),
        fence=fences.for_run(limits),
        fds={3: wire},
        source=source,
        main=not prelude,
        files=(("/tmp/main.py", program),) if prelude else (),
        flavour=languages.flavour_of(source),
        num_budgets=num_tests + 1,
    )


def tests_job(plan: dict[str, Any], limits: Limits, num_tests: int, fds: dict[int, int]) -> Job:
    return Job(
        role="tests",
        argv=("tests",),
        fence=fences.for_tests(limits),
        fds=fds,
        source=codec.dumps(told(plan)),
        num_budgets=num_tests + 1,
        flavour="pytest" if plan["kind"] in MODULE_KINDS else "tests",
        files=plan.get("files", ()),
    )


def told(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan the test process reads: texts, and of files their names."""
    files = [path.rpartition("/")[2] for path, _ in plan.get("files", ())]
    return {name: value for name, value in plan.items() if name not in OF_THE_HOST} | {"files": files}


def check_plan(plan: dict[str, Any]) -> None:
    """Raises InvalidSuite for tests that are too large for their process to be told of."""
    if sum(map(len, (plan["setup"], plan["helpers"], *plan["tests"]))) < SURELY_SMALL:
        return
    try:
        codec.dumps(told(plan))
    except codec.CodecError as error:
        raise InvalidSuite(f"the tests are too large: {error}") from None


def num_tests(plan: dict[str, Any]) -> int:
    """How many tests a plan has; those of a test file are known from its control run."""
    return len(plan["names"]) if plan["kind"] in MODULE_KINDS else len(plan["tests"])


class Pair:
    """T and C, started together, ended together."""

    def __init__(
        self, starter: Starter, source: bytes, plan: dict[str, Any], limits: Limits, num_tests: int, options: Options
    ) -> None:
        ours, theirs = socket.socketpair()
        left, right = socket.socketpair()
        nowhere = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)  # what the tests print is nobody's business
        self.channel = Channel(ours, bounds.MAX_WORD_BYTES)
        self.watch = Watch(options.audit)
        self.tests: Run | None = None
        self.candidate: Run | None = None
        try:
            self.tests = Run(
                starter, tests_job(plan, limits, num_tests, {1: nowhere, 3: left.fileno(), 4: theirs.fileno()})
            )
            job = serve_job(source, limits, num_tests, right.fileno(), options)
            self.candidate = Run(starter, self.watch.join(job))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(nowhere)
            for sock in (theirs, left, right):
                sock.close()

    def order(self, number: int) -> None:
        data = codec.dumps({"run": number})
        self.channel.sock.setblocking(True)
        self.channel.sock.sendall(len(data).to_bytes(4, "big") + data)
        self.channel.sock.setblocking(False)

    def answer(self) -> dict[str, Any] | Fate:
        """T's next word, or how the candidate or the tests came to their end instead."""
        t, c = self.runs()
        lost_at: float | None = None
        while True:
            if pump([t, c], self.channel.fileno() if not self.channel.closed else None):
                self.channel.fill()
            message = self.message()
            if isinstance(message, Fate):
                return message
            if message is not None and "lost" not in message:
                return message
            if message is not None:
                lost_at = time.monotonic()
            if c.ending is not None and (lost_at is not None or c.killed_for is not None):
                return candidate_fate(c)
            if t.ending is not None and lost_at is None and not self.channel.pending:
                return tests_fate(t)
            if lost_at is not None and c.ending is None and time.monotonic() > lost_at + LOST_S:
                return Fate(Verdict.INVALID_RESULT, "the program broke the wire to its judge")

    def answer_alone(self) -> dict[str, Any] | Fate:
        """The same of a test that may have executed what the program said: nothing it says is the tests' fault."""
        word = self.answer()
        if isinstance(word, dict) and "done" not in word:
            why = bounds.text(word.get("invalid"))
            return Fate(Verdict.INVALID_RESULT, f"in a test that executes the answer: {why}")
        return word

    def message(self) -> dict[str, Any] | Fate | None:
        """T's next message if it is there.

        T's own code makes messages that can be read. Where one cannot be read, a test has done what an answer made it
        do (`eval` of it, say): the program's result, never a reason to call the suite invalid.
        """
        try:
            data = self.channel.frame()
            message = None if data is None else codec.loads(data)
        except codec.CodecError as error:
            return unreadable(str(error))
        return message if isinstance(message, dict | None) else unreadable("not an object")

    def runs(self) -> tuple[Run, Run]:
        if self.tests is None or self.candidate is None:
            raise SandboxError("the pair has not started")
        return self.tests, self.candidate

    def close(self) -> None:
        try:
            for run in (self.candidate, self.tests):
                if run is not None:
                    run.close()
        finally:
            self.channel.close()
            self.watch.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def unreadable(why: str) -> Fate:
    return Fate(Verdict.INVALID_RESULT, f"what the test process says of it cannot be read: {bounds.text(why)}")


def candidate_fate(run: Run) -> Fate:
    """The verdict of a test in which the candidate ended; a clean exit is no answer."""
    end = fate(run)
    if end.verdict is None:
        return Fate(Verdict.NO_RESULT, "the program exits instead of answering")
    return end


def tests_fate(run: Run) -> Fate:
    """The verdict of a test in which the test process itself ended, driven there by what the program answered."""
    end = fate(run)
    if end.verdict in (Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT):
        return Fate(end.verdict, f"in the test itself: {end.detail}")
    return Fate(Verdict.INVALID_RESULT, f"the test process ended: {end.detail or 'it exited'}")


def judge_tests(
    starter: Starter,
    source: bytes,
    plan: dict[str, Any],
    limits: Limits,
    allowed_failures: int | None,
    options: Options,
    decided: Sequence[TestReport] = (),
) -> tuple[list[TestReport], set[str]]:
    """Run the tests of `plan` against the program; `allowed_failures` stops early. Raises InvalidSuite.

    The first tests are left out where they are `decided` already.
    """
    total = num_tests(plan)
    uncounted = plan.get("uncounted", ())
    plan = plan | read(plan["setup"], plan["helpers"], tuple(plan["tests"]), plan["entry_point"])
    if plan["kind"] in MODULE_KINDS:  # where the file executes an answer somewhere, each of its tests is alone
        plan["lonely"] = [any(plan["lonely"])] * total
    lonely: list[bool] = plan["lonely"]
    check_plan(plan)
    reports: list[TestReport] = [*decided]
    found: set[str] = set()
    failures = sum(report.verdict is not Verdict.PASSED for report in reports)
    while len(reports) < total and (allowed_failures is None or failures < allowed_failures):
        with Pair(starter, source, plan, limits, total, options) as pair:
            t, c = pair.runs()
            meter = Meter(c)
            word = pair.answer()
            stuck, loading = False, True
            if isinstance(word, dict) and "invalid" in word:
                why = bounds.text(word["invalid"], bounds.MAX_DETAIL)
                if all(lonely):  # the setup executes answers, so what it says may be the program's word
                    word = {"failed": ["invalid_result", f"in a setup that executes the answer: {why}"]}
                else:
                    raise InvalidSuite(f"the tests cannot be used: {why}")
            if isinstance(word, dict) and "ready" not in word:
                word = verdict_of(word.get("failed"))
            elif isinstance(word, dict) and not same_tests(word.get("names"), plan.get("names")):
                word = Fate(Verdict.INVALID_RESULT, "what the program answers changes which tests there are")
            if isinstance(word, Fate):
                # Every further test would meet the same end: the program does not load, or the setup does not run.
                report = meter.report(word.verdict or Verdict.NO_RESULT, word.detail)
                while len(reports) < total and (allowed_failures is None or failures < allowed_failures):
                    failures += len(reports) not in uncounted
                    reports.append(report)
                found |= flags(c) | pair.watch.flags()
                break
            while not stuck and len(reports) < total and (allowed_failures is None or failures < allowed_failures):
                alone = lonely[len(reports)]  # it may execute what the program says, and decides only for itself
                if alone and not loading:
                    break
                c.grant(wall=not loading)
                t.grant()
                loading = False
                pair.order(len(reports))
                word = pair.answer_alone() if alone else pair.answer()
                if isinstance(word, dict) and "invalid" in word:
                    raise InvalidSuite(f"the tests cannot be used: {bounds.text(word['invalid'], bounds.MAX_DETAIL)}")
                leaned = alone or (isinstance(word, dict) and word.get("leaned") is True)
                if isinstance(word, Fate):
                    end, stuck = word, True
                else:
                    end = verdict_of(word.get("done"))
                    stuck = bool(word.get("last"))
                end = meter.overruled(end)
                stuck = stuck or end.verdict is Verdict.OUTPUT_LIMIT
                reports.append(meter.report(end.verdict or Verdict.NO_RESULT, end.detail))
                failures += end.verdict is not Verdict.PASSED and len(reports) - 1 not in uncounted
                if leaned and end.verdict is Verdict.PASSED:
                    found.add("program_methods")
                stuck = stuck or alone or any(run.ending or run.killed_for for run in (t, c))
                meter = meter.next()
            found |= flags(c) | pair.watch.flags()
    return reports, found


def same_tests(names: Any, expected: Any) -> bool:
    """Whether a test file has the tests that its control run had; what parameters are called may differ."""
    if not expected:
        return True
    return isinstance(names, list) and [bare_name(one) for one in names] == [bare_name(one) for one in expected]


def bare_name(name: Any) -> str:
    return str(name).partition("[")[0]


def verdict_of(pair: Any) -> Fate:
    """T's own words for a verdict. A test that skips itself only for this program has not passed."""
    try:
        verdict, detail = pair
        if verdict == "skipped":
            why = f"the test skips itself for what the program answers: {bounds.text(detail)}"
            return Fate(Verdict.INVALID_RESULT, why)
        return Fate(Verdict(verdict), bounds.text(detail, bounds.MAX_DETAIL))
    except (TypeError, ValueError):
        return unreadable("not a verdict and a reason")
