"""The control run: a suite of code runs once against a program that answers nothing, before it judges any program.

- The result is remembered by the suite's content (`ControlResults`, bounded, one per sandbox).
- A test that passes without looking at an answer is vacuous, and marked. A suite of vacuous tests only is invalid.
- Anything that the tests need beside the program (modules, a `check`, tests to collect) is found missing here. A suite
  can be found invalid only here or by reading it: whatever goes wrong later is the program's failure.
- A test that asks for more than values is unjudgeable.
- A test process that hangs or crashes ends the control run. Tests that it did not reach count as valid.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sandbox.errors import InvalidSuite
from sandbox.judge import codec
from sandbox.judge.assertion_analysis import looks_at_raised, surely_asserts
from sandbox.judge.frame_channel import FrameChannel
from sandbox.judge.program_methods import asked_beyond
from sandbox.judge.request import JudgeRequest
from sandbox.judge.suite_plan import MODULE_KINDS, tests_job, without_parameters
from sandbox.run import JailRun, pump
from sandbox.types import Limits

# After the first round, which refuses: answers of which nothing is true, or everything, then plain ones.
ROUNDS = ("no", "yes", "none", "true", "false", "number", "text", "list", "dict")
MAX_REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What a control run has found about a suite's tests."""

    names: tuple[str, ...] = ()
    vacuous: frozenset[int] = frozenset()
    unjudgeable: Mapping[int, str] = field(default_factory=dict)
    skipped: Mapping[int, str] = field(default_factory=dict)
    invalid: str = ""

    @property
    def uncounted(self) -> frozenset[int]:
        """The tests that do not count. Vacuous tests do count: a program can still fail one."""
        return frozenset(self.unjudgeable) | frozenset(self.skipped)


class ControlResults:
    """Results of control runs, by the content of suite and mode. The least recently used is dropped first."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, ControlResult] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: str) -> ControlResult | None:
        with self.lock:
            result = self.known.get(key)
            if result is not None:
                self.known.move_to_end(key)
            return result

    def put(self, key: str, control: ControlResult) -> None:
        with self.lock:
            self.known[key] = control
            while len(self.known) > MAX_REMEMBERED:
                self.known.popitem(last=False)

    def close(self) -> None:
        self.known.clear()


@dataclass(slots=True)
class ControlRound:
    """One pass over all tests with one kind of answers: verdict and reason of each test that it reached."""

    names: list[str]
    verdicts: dict[int, tuple[str, str]]
    invalid: str = ""
    failed: str = ""
    starved: bool = False


def control_result(request: JudgeRequest, plan: dict[str, Any]) -> ControlResult:
    """The result of this plan's control run, from memory if it has run before.

    - `options.control` false: the tests of a file are only collected, and what reading finds is all.
    - `options.grading` `together`: nothing is unjudgeable, because the tests share the program's process.
    - `options.grading` `auto`: what is unjudgeable will be judged together.

    Raises:
        InvalidSuite: the suite has no test that counts, or cannot run.
    """
    run, beyond = request.options.control, request.options.grading != "together"
    texts = (plan["kind"], plan["entry_point"], plan["setup"], plan["helpers"], *plan["tests"])
    key = key_of(texts, run, beyond, request.limits)
    if plan.get("files"):
        key = hashlib.sha256(repr((key, plan["files"])).encode("utf-8", "surrogatepass")).hexdigest()
    results = request.sandbox.cached(ControlResults)
    control = results.get(key)
    if control is None:
        control, lasting = run_control(request, plan)
        if lasting:
            results.put(key, control)
    if control.invalid:
        raise InvalidSuite(control.invalid)
    total = len(control.names) if plan["kind"] in MODULE_KINDS else len(plan["tests"])
    judged_later = request.options.grading == "auto"
    left_out = control.vacuous | frozenset(control.skipped if judged_later else control.uncounted)
    if run and len(left_out) >= total:
        raise InvalidSuite(nothing_left(control))
    return control


@lru_cache(maxsize=64)
def key_of(texts: tuple[str, ...], run: bool, beyond: bool, limits: Limits) -> str:
    """A digest of all that a control run depends on, but for files."""
    about = repr((texts, run, beyond, limits))
    return hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()


def run_control(request: JudgeRequest, plan: dict[str, Any]) -> tuple[ControlResult, bool]:
    """The result of a control run, and whether another would find the same."""
    run, beyond = request.options.control, request.options.grading != "together"
    of_file = plan["kind"] in MODULE_KINDS
    if not run and not of_file:
        return ControlResult(unjudgeable=asked_beyond(plan, ()) if beyond else {}), True
    first = one_round(request, plan, "refuse", collect_only=not run)
    lasting = not first.starved
    if first.invalid:
        return ControlResult(invalid=f"the tests cannot be used: {first.invalid}"), lasting
    if first.failed and of_file:
        reason = "its tests depend on what the program answers while the file is loaded"
        return ControlResult(
            invalid=f"the tests cannot be used: {reason} ({first.failed}); define them without asking the program"
        ), lasting
    if of_file and not first.names:
        return ControlResult(invalid="tests.source: no test is in it" if lasting else "the tests do not load"), lasting
    unjudgeable = dict(asked_beyond(plan, first.names)) if beyond else {}
    skipped = {}
    for number, (verdict, reason) in first.verdicts.items():
        if verdict == "invalid_result" and beyond:
            unjudgeable.setdefault(number, reason)
        elif verdict == "skipped":
            skipped[number] = f"the suite skips it: {reason}"
    vacuous = find_vacuous(request, plan, first, set(unjudgeable) | set(skipped))
    return ControlResult(tuple(first.names), vacuous, unjudgeable, skipped), lasting


def nothing_left(control: ControlResult) -> str:
    if control.unjudgeable and not control.vacuous:
        reason = next(iter(control.unjudgeable.values()))
        return f"no test can be judged by values: {reason}; use options.grading together"
    if control.skipped and not control.vacuous and not control.unjudgeable:
        return "every test is skipped by the suite itself; take out a skip mark, or judge by another suite"
    return (
        "no test looks at what the program answers: every one passes for a program that answers nothing; "
        "assert something of an answer, or set options.control to false"
    )


def find_vacuous(
    request: JudgeRequest, plan: dict[str, Any], first: ControlRound, left_out: set[int]
) -> frozenset[int]:
    """The tests that pass whatever is answered: they do not look at the answer, or have no check that could fail."""
    suspects = set()
    for number, (verdict, _) in first.verdicts.items():
        text, name = text_of(plan, number), name_of(plan, first, number)
        if verdict == "passed" or (verdict == "refused" and not surely_asserts(text, name)):
            suspects.add(number)
    suspects -= left_out
    for mode in ROUNDS:
        if not suspects:
            break
        again = one_round(request, plan, mode, only=suspects)
        suspects &= {number for number, (verdict, _) in again.verdicts.items() if verdict == "passed"}
    return frozenset(
        number for number in suspects if not looks_at_raised(text_of(plan, number), name_of(plan, first, number))
    )


def text_of(plan: dict[str, Any], number: int) -> str:
    text: str = plan["tests"][0] if plan["kind"] in MODULE_KINDS else plan["tests"][number]
    return text


def name_of(plan: dict[str, Any], first: ControlRound, number: int) -> str:
    if plan["kind"] in MODULE_KINDS:
        return without_parameters(first.names[number])
    return "check" if plan["kind"] == "check" else ""


def one_round(
    request: JudgeRequest,
    plan: dict[str, Any],
    mode: str,
    *,
    collect_only: bool = False,
    only: Collection[int] | None = None,
) -> ControlRound:
    """Run the tests, or `only` some, against the control program in one process; it ends where that process does."""
    host_end, jail_end = socket.socketpair()
    nowhere = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    channel = FrameChannel(host_end)
    total = len(plan["tests"])
    result = ControlRound([], {})
    try:
        fds = {1: nowhere, 4: jail_end.fileno()}
        job = tests_job({**plan, "control": mode}, request.limits, max(total, 64), fds)
        with JailRun(request.sandbox, job, purpose="control") as run:
            jail_end.close()
            word = next_message(run, channel)
            if word is None or "ready" not in word:
                word = word or {}
                result.invalid = str(word.get("invalid", ""))
                failed = word.get("failed")
                result.failed = str(failed[1]) if isinstance(failed, list) and len(failed) == 2 else ""
                result.starved = not word
                return result
            result.names = [str(name) for name in word.get("names") or ()]
            if collect_only:
                result.verdicts = dict.fromkeys(word.get("skips") or (), ("skipped", "by its decorator"))
                return result
            for number in range(len(result.names) if plan["kind"] in MODULE_KINDS else total):
                if only is not None and number not in only:
                    continue
                run.grant()
                try:
                    channel.send({"run": number})
                except OSError:
                    channel.closed = True  # the process has ended; its last messages may be there still
                word = next_message(run, channel)
                if word is None:
                    result.starved = run.starved
                    return result
                if "invalid" in word:
                    result.invalid = str(word["invalid"])
                    return result
                done = word.get("done")
                if isinstance(done, list) and len(done) == 2:
                    result.verdicts[number] = (str(done[0]), str(done[1]))
                if word.get("last"):
                    return result
            return result
    finally:
        jail_end.close()
        os.close(nowhere)
        channel.close()


def next_message(run: JailRun, channel: FrameChannel) -> dict[str, Any] | None:
    """The next message of the test process; None if it has ended or sent what cannot be read."""
    while True:
        if pump([run], None if channel.closed else channel.fileno()):
            channel.fill()
        try:
            data = channel.frame()
            message = None if data is None else codec.loads(data)
        except codec.CodecError as error:
            raise InvalidSuite(f"the tests cannot be used: they write to their judge's connection ({error})") from None
        if isinstance(message, dict):
            return message
        if data is not None:
            raise InvalidSuite("the tests cannot be used: they write to their judge's connection")
        if run.job_exit is not None or channel.closed:
            channel.fill()
            if len(channel.pending) < 4:
                return None
