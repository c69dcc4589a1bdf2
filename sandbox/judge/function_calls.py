"""Judging by calls: arguments go to the program's process, the returned value comes back and is compared here."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import bounds, codec
from sandbox.judge.audit import Watch
from sandbox.judge.compare import Opaque, same_value
from sandbox.judge.isolated_tests import LOST_S, Channel, Meter, candidate_fate, serve_job
from sandbox.run import Fate, Run, Starter, flags, pump
from sandbox.types import FunctionSuite, Limits, Options, TestReport

TOO_MUCH_MEMORY = Fate(Verdict.INVALID_RESULT, "the answer needs more memory than its judge has")


class Undecided(Exception):
    """The answer is not a plain value: only the test process can say what the test makes of it.

    What was decided before it stands: `reports`, and the `flags` of the run.
    """

    reports: Sequence[TestReport] = ()
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the entry point, and who weighs what comes back (a tree of the codec)."""

    args: list[Any]  # trees, those of `names` last
    names: list[str]
    weigh: Callable[[Any], Fate]
    long_way: int = bounds.MAX_MESSAGE_BYTES  # an answer of more bytes is not weighed here: Undecided


class Candidate:
    """The program's process, seen from here."""

    def __init__(self, starter: Starter, source: bytes, limits: Limits, num_tests: int, options: Options) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.watch = Watch(options.audit)
        self.next_id = 0
        try:
            job = serve_job(source, limits, num_tests, theirs.fileno(), options)
            self.run = Run(starter, self.watch.join(job))
        except BaseException:
            self.channel.close()
            self.watch.close()
            raise
        finally:
            theirs.close()

    def receive(self, long_way: int = bounds.MAX_MESSAGE_BYTES) -> dict[str, Any] | Fate:
        """The program's next message, or how it ended instead. Raises Undecided for one of more than `long_way`."""
        closed_at: float | None = None
        while True:
            if pump([self.run], None if self.channel.closed else self.channel.fileno()):
                self.channel.fill()
            try:
                data = self.channel.frame()
                if data is not None and self.run.killed_for is None:
                    if len(data) > long_way:
                        raise Undecided("the answer is too large to be compared here")
                    message = codec.loads(data, bounds.MAX_JUDGED_CONTAINERS)
                    if not isinstance(message, dict):
                        raise codec.CodecError("a message that is not an object")
                    return message
            except codec.CodecError as error:
                return Fate(Verdict.INVALID_RESULT, bounds.text(str(error)))
            if self.run.ending is not None:
                return candidate_fate(self.run)
            if self.channel.closed:
                closed_at = closed_at or time.monotonic()
                if time.monotonic() > closed_at + LOST_S:
                    return Fate(Verdict.INVALID_RESULT, "the program broke the wire to its judge")

    def send(self, message: dict[str, Any]) -> None:
        """Write without ever waiting for the program for longer than its budget lasts."""
        data = codec.dumps(message)
        view = memoryview(len(data).to_bytes(4, "big") + data)
        while view and self.run.ending is None and not self.channel.closed:
            try:
                view = view[self.channel.sock.send(view) :]
            except BlockingIOError:
                pump([self.run])
            except OSError:
                return

    def call(self, entry_point: str, call: Call) -> Fate:
        """Make a call and weigh what comes back. Raises Undecided."""
        try:
            return self._call(entry_point, call)
        except MemoryError:  # whatever has grown here, has grown for this answer
            return TOO_MUCH_MEMORY

    def greeting(self) -> Fate | None:
        """Why the program could not be loaded; None if it could."""
        try:
            return greeting_fate(self.receive())
        except MemoryError:
            return TOO_MUCH_MEMORY

    def _call(self, entry_point: str, call: Call) -> Fate:
        self.next_id += 1
        message = {"op": "call", "id": self.next_id, "name": entry_point, "args": call.args, "names": call.names}
        self.send(message)
        reply = self.receive(call.long_way)
        return reply if isinstance(reply, Fate) else reply_fate(reply, self.next_id, call)

    def close(self) -> None:
        try:
            self.run.close()
        finally:
            self.channel.close()
            self.watch.close()

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def reply_fate(reply: dict[str, Any], number: int, call: Call) -> Fate:
    """The verdict on a program's reply to call `number`. Raises Undecided."""
    if reply.get("id") != number:
        return Fate(Verdict.INVALID_RESULT, "a reply that nobody asked for")
    if "wall" in reply:
        return Fate(Verdict.INVALID_RESULT, bounds.text(reply["wall"]))
    if "error" in reply:
        return error_fate(reply["error"])
    return call.weigh(reply.get("ok"))


def error_fate(tree: Any) -> Fate:
    """The verdict on an exception that the program describes."""
    described = tree if isinstance(tree, dict) else {}
    base = described.get("base")
    if base == "SystemExit":
        return Fate(Verdict.NO_RESULT, "the program exits instead of answering")
    name = bounds.text(described.get("name"), bounds.MAX_NAME)
    message = bounds.text(described.get("message"), bounds.MAX_ERROR)
    verdict = Verdict.MEMORY_LIMIT if base == "MemoryError" else Verdict.RUNTIME_ERROR
    return Fate(verdict, f"{name}: {message}")


def calls_of(suite: FunctionSuite) -> list[Call]:
    """The calls of a suite. Raises InvalidSuite for a case whose values cannot cross the wall."""
    calls = []
    for number, case in enumerate(suite.cases):
        trees = {}
        also = [("also", value) for value in case.also]
        values = [("args", [*case.args]), ("kwargs", [*case.kwargs.values()]), ("expected", case.expected), *also]
        for what, value in values:
            try:
                trees[what] = codec.encode(value)
                codec.dumps(trees[what])
            except codec.CodecError as error:
                raise InvalidSuite(f"case {number}: {what}: {error}") from None
        weigh: Callable[[Any], Fate] = partial(weigh_value, expected=case.expected, rel_tol=suite.rel_tol)
        if case.also:
            weigh = partial(weigh_values, expected=(case.expected, *case.also), rel_tol=suite.rel_tol)
        calls.append(Call([*trees["args"], *trees["kwargs"]], list(case.kwargs), weigh))
    return calls


def weigh_value(tree: Any, expected: Any, rel_tol: float | None) -> Fate:
    """The verdict on a returned value, by the rules of JSON-like expected values (`compare.same_value`)."""
    try:
        right = same_value(tree, expected, rel_tol)
    except (Opaque, codec.CodecError) as error:
        return Fate(Verdict.INVALID_RESULT, bounds.text(str(error)))
    if right:
        return Fate(Verdict.PASSED)
    return Fate(Verdict.WRONG_ANSWER, f"returned {codec.beginning(tree, 300)}")


def weigh_values(tree: Any, expected: Sequence[Any], rel_tol: float | None) -> Fate:
    """The same, where any of several values is right."""
    fates = [weigh_value(tree, value, rel_tol) for value in expected]
    return next((fate for fate in fates if fate.verdict is Verdict.PASSED), fates[0])


def judge_calls(
    starter: Starter,
    source: bytes,
    entry_point: str,
    calls: Sequence[Call],
    limits: Limits,
    allowed_failures: int | None,
    options: Options,
) -> tuple[list[TestReport], set[str]]:
    """Make the calls one after another; one that ends the program costs a fresh process for the next."""
    reports: list[TestReport] = []
    found: set[str] = set()
    failures = 0

    def going_on() -> bool:
        return len(reports) < len(calls) and (allowed_failures is None or failures < allowed_failures)

    while going_on():
        with Candidate(starter, source, limits, len(calls), options) as candidate:
            meter = Meter(candidate.run)
            end = candidate.greeting()
            if end is not None:
                report = meter.report(end.verdict or Verdict.NO_RESULT, end.detail)
                missing = len(calls) - len(reports)
                if allowed_failures is not None:
                    missing = min(missing, allowed_failures - failures)
                reports += [report] * missing
                found |= flags(candidate.run) | candidate.watch.flags()
                break
            stuck, loading = False, True
            while not stuck and going_on():
                candidate.run.grant(wall=not loading)
                loading = False
                try:
                    end = meter.overruled(candidate.call(entry_point, calls[len(reports)]))
                except Undecided as undecided:
                    undecided.reports = reports
                    undecided.flags = frozenset(found | flags(candidate.run) | candidate.watch.flags())
                    raise
                gone = candidate.run.ending is not None or candidate.run.killed_for is not None
                stuck = gone or end.verdict in (Verdict.OUTPUT_LIMIT, Verdict.INVALID_RESULT)
                reports.append(meter.report(end.verdict or Verdict.NO_RESULT, end.detail))
                failures += end.verdict is not Verdict.PASSED
                meter = meter.next()
            found |= flags(candidate.run) | candidate.watch.flags()
    return reports, found


def greeting_fate(hello: dict[str, Any] | Fate) -> Fate | None:
    """Why the program could not be loaded; None if it could."""
    if isinstance(hello, Fate):
        return hello
    if hello.get("hello") is not True:
        return Fate(Verdict.INVALID_RESULT, "no greeting")
    if "exit" in hello:
        return Fate(Verdict.NO_RESULT, f"the program exits with {bounds.text(hello['exit'], 20)} while it is loaded")
    if hello.get("parsed") is False:
        return Fate(Verdict.COMPILE_ERROR, error_fate(hello.get("error")).detail)
    if "error" in hello:
        return error_fate(hello["error"])
    return None
