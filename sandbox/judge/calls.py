"""Judging by calls: arguments go to the program's process, the returned value comes back and is compared here."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sandbox.errors import InvalidSuite
from sandbox.judge import codec
from sandbox.judge.audit import Watch
from sandbox.judge.compare import Opaque, same_value
from sandbox.judge.split import LOST_S, Channel, Meter, candidate_fate, serve_job
from sandbox.run import Fate, Run, Starter, flags, pump
from sandbox.types import FunctionSuite, Limits, Options, TestReport, Verdict


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the entry point, and who weighs what comes back (a tree of the codec)."""

    args: list[Any]  # trees, those of `names` last
    names: list[str]
    weigh: Callable[[Any], Fate]


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

    def receive(self) -> dict[str, Any] | Fate:
        """The program's next message, or how it ended instead."""
        closed_at: float | None = None
        while True:
            if pump([self.run], None if self.channel.closed else self.channel.fileno()):
                self.channel.fill()
            try:
                data = self.channel.frame()
                if data is not None and self.run.killed_for is None:
                    message = codec.loads(data)
                    if not isinstance(message, dict):
                        raise codec.CodecError("a message that is not an object")
                    return message
            except codec.CodecError as error:
                return Fate(Verdict.INVALID_RESULT, str(error))
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
        self.next_id += 1
        message = {"op": "call", "id": self.next_id, "name": entry_point, "args": call.args, "names": call.names}
        self.send(message)
        reply = self.receive()
        if isinstance(reply, Fate):
            return reply
        if reply.get("id") != self.next_id:
            return Fate(Verdict.INVALID_RESULT, "a reply that nobody asked for")
        if "wall" in reply:
            return Fate(Verdict.INVALID_RESULT, str(reply["wall"])[:500])
        if "error" in reply:
            return error_fate(reply["error"])
        return call.weigh(reply.get("ok"))

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


def error_fate(tree: Any) -> Fate:
    described = tree if isinstance(tree, dict) else {}
    if described.get("base") == "SystemExit":
        return Fate(Verdict.NO_RESULT, "the program exits instead of answering")
    name, message = str(described.get("name"))[:200], str(described.get("message"))[:2000]
    return Fate(Verdict.RUNTIME_ERROR, f"{name}: {message}")


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
        return Fate(Verdict.INVALID_RESULT, str(error))
    if right:
        return Fate(Verdict.PASSED)
    return Fate(Verdict.WRONG_ANSWER, f"returned {codec.dumps(tree).decode()[:300]}")


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
            hello = candidate.receive()
            end = greeting_fate(hello)
            if end is not None:
                report = meter.report(end.verdict or Verdict.NO_RESULT, end.detail)
                missing = len(calls) - len(reports)
                if allowed_failures is not None:
                    missing = min(missing, allowed_failures - failures)
                reports += [report] * missing
                found |= flags(candidate.run) | candidate.watch.flags()
                break
            stuck = False
            while not stuck and going_on():
                candidate.run.grant()
                end = meter.overruled(candidate.call(entry_point, calls[len(reports)]))
                gone = candidate.run.ending is not None or candidate.run.killed_for is not None
                stuck = gone or end.verdict in (Verdict.OUTPUT_LIMIT, Verdict.INVALID_RESULT)
                reports.append(meter.report(end.verdict or Verdict.NO_RESULT, end.detail))
                failures += end.verdict is not Verdict.PASSED
                meter = Meter(candidate.run)
            found |= flags(candidate.run) | candidate.watch.flags()
    return reports, found


def greeting_fate(hello: dict[str, Any] | Fate) -> Fate | None:
    """Why the program could not be loaded; None if it could."""
    if isinstance(hello, Fate):
        return hello
    if hello.get("hello") is not True:
        return Fate(Verdict.INVALID_RESULT, "no greeting")
    if "exit" in hello:
        return Fate(Verdict.NO_RESULT, f"the program exits with {hello['exit']!r:.20} while it is loaded")
    if "error" in hello:
        return error_fate(hello["error"])
    return None
