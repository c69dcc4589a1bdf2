"""The verdict of a checker or an interactor, read from how its process ended.

| it ends with | meaning |
|---|---|
| exit code 0 | accepted; or a score, where the last line on stdout is a number in [0, 1] |
| 1, 2, 4, 8 | refused: wrong, not in the form asked for, more than was asked for, less than was asked for; also an
  AssertionError that a Python checker lets out |
| 7 | a score in [0, 1]: the first number on stderr, or on stdout, with or without `points` before it |
| 3 | it reports that it failed |
| anything else: another code, a signal, a limit, another Python traceback | it broke |

The codes are testlib's. The first line on stderr (or on stdout) is the message. The caller decides what a failed or
broken checker means for the program.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace

from plaudit.grading import Verdict
from sandbox.judge.bounds import encodable
from sandbox.run import JailRun, RunOutcome, classify_exit
from sandbox.types import TestReport

ACCEPTED, SCORED, FAILED = 0, 7, 3
REFUSED = {
    1: "wrong answer",
    2: "not in the form asked for",
    4: "more output than was asked for",
    8: "less output than was asked for",
}
MAX_MESSAGE_CHARS = 400
MAX_LINE_BYTES = 4 * MAX_MESSAGE_CHARS
MAX_TRIED = 256
NUMBER = re.compile(rb"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?")
POINTS = re.compile(rb"\s*(?:points\s+)?(" + NUMBER.pattern + rb")(?=\s|$)")
TRACEBACK = b"Traceback (most recent call last):"
# What no input can be the cause of: the program text itself does not load.
UNLOADABLE = re.compile(rb"(?:SyntaxError|IndentationError|TabError|ImportError|ModuleNotFoundError)\b")


@dataclass(frozen=True, slots=True)
class CheckerVerdict:
    """`score` is None if the checker failed or broke. Only a score of 1 accepts."""

    score: float | None
    message: str = ""
    failed: bool = False  # it reports so: exit code 3
    unloadable: bool = False  # its text cannot even be loaded, whatever it is given
    transient: bool = False  # another run might end in another way

    @property
    def accepted(self) -> bool:
        return self.score == 1


def checker_verdict(run: JailRun, *, speaks: bool) -> CheckerVerdict:
    """The verdict of an ended run. `speaks`: its stdout holds its message, and is not one end of a dialogue."""
    end = classify_exit(run)
    out, err = bytes(run.stdout.data) if speaks else b"", bytes(run.stderr.data)
    code = None if run.job_exit is None else run.job_exit.exit_code
    return interpret_exit(end, code, out, err)


def interpret_exit(end: RunOutcome, code: int | None, out: bytes, err: bytes) -> CheckerVerdict:
    """The table above. `end` says whether a limit was met; `code` is None for a signal."""
    if end.verdict is Verdict.COMPILE_ERROR:
        return CheckerVerdict(None, message_of(last_line(err)), unloadable=True)
    if end.verdict not in (None, Verdict.RUNTIME_ERROR) or code is None:
        return CheckerVerdict(None, end.detail, transient=end.detail.startswith("wall"))
    last = last_line(out)
    number = NUMBER.fullmatch(last)
    if code == ACCEPTED and number is None:
        return CheckerVerdict(1.0, message_of(err) or message_of(out))
    if code == ACCEPTED:
        return scored(last, message_of(err))
    if code == SCORED:
        points = POINTS.match(err[:MAX_LINE_BYTES]) or POINTS.match(out[:MAX_LINE_BYTES])
        if points is None:
            return CheckerVerdict(None, "it ends with code 7, and no score stands first on its stderr or stdout")
        return scored(points[1], message_of(err) or message_of(out))
    unloadable = code == 1 and UNLOADABLE.match(last_line(err)) is not None
    if unloadable or (code == 1 and TRACEBACK in err and not last_line(err).startswith(b"AssertionError")):
        return CheckerVerdict(None, message_of(last_line(err)), unloadable=unloadable)
    if code in REFUSED:
        complaint = last_line(err) if TRACEBACK in err else err
        return CheckerVerdict(0.0, message_of(complaint) or ("" if number else message_of(out)) or REFUSED[code])
    if code == FAILED:
        return CheckerVerdict(None, message_of(err) or message_of(out) or "exit code 3", failed=True)
    return CheckerVerdict(None, " ".join(filter(None, (end.detail, message_of(last_line(err))))))


def scored(number: bytes, message: str) -> CheckerVerdict:
    score = float(number)
    if not 0 <= score <= 1:
        return CheckerVerdict(None, f"it gives {number.decode()[:40]}, and a score lies in [0, 1]")
    return CheckerVerdict(score, message)


def apply_checker_verdict(report: TestReport, decision: CheckerVerdict, who: str) -> tuple[TestReport, set[str]]:
    """The report of a program that ended well, decided by a checker or an interactor.

    A checker that fails or breaks does so on this program's output: it was tried before, without this program
    (`checkers.py`). So the program's answer was not accepted, and it has failed.
    """
    if decision.score is None:
        how = "says that it failed" if decision.failed else "broke"
        detail = f"the {who} {how} on this program's output: {decision.message}"
        return replace(report, verdict=Verdict.INVALID_RESULT, detail=detail, score=0.0), {f"{who}_failed"}
    verdict = Verdict.PASSED if decision.accepted else Verdict.WRONG_ANSWER
    detail = decision.message or ("" if decision.accepted else f"the {who} gives {decision.score:g}")
    return replace(report, verdict=verdict, detail=detail, score=decision.score), set()


def last_line(data: bytes) -> bytes:
    """The last line that is not blank, unless it is longer than anybody's message."""
    tail = data[-MAX_LINE_BYTES:].rstrip()
    line = tail[tail.rfind(b"\n") + 1 :]
    return b"" if len(line) == len(tail) and len(data.rstrip()) > len(tail) else line.strip()


def message_of(data: bytes) -> str:
    """The first line that is not blank, cut to a size that can travel in a report."""
    line = data[:MAX_LINE_BYTES].lstrip().split(b"\n", 1)[0].rstrip()
    text = encodable(line.decode("utf-8", "replace"))
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "…"


class TriedCheckers:
    """Which suites' checkers have been tried, and the results. The least recently used is dropped first.

    A value is the numbers of the vacuous cases, or a text that says why the suite cannot be used.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, frozenset[int] | str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> frozenset[int] | str | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: bytes, result: frozenset[int] | str) -> None:
        self._kept[key] = result
        while len(self._kept) > MAX_TRIED:
            self._kept.popitem(last=False)

    def close(self) -> None:
        self._kept.clear()
