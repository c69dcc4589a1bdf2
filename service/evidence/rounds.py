"""Which programs of a group are observed on which calls, round by round, within one budget of CPU time.

- The first round is of all programs: on the examples, and on the inputs where more of them cost next to nothing (calls
  of a function). Each program has an equal share of the budget, so that what is slow is cut short.
- What the first round leaves is for the contenders: programs that can still pass as many examples as the best. Those
  that were cut short among the examples are tried once more. Programs on stdin, of which each input is a run, are given
  inputs a few at a time.
- It ends when nothing left can change which program is best: one contender is left, or the lead of one is larger than
  what the inputs left could take from it. Or with the budget.
- Pure: it neither runs nor waits. The service submits the rounds as jobs, training runs them in its own sandbox.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from plaudit.grading import Verdict
from sandbox.judge.observe import not_reached
from sandbox.types import Report, TestReport
from service.evidence.behavior import VALUE, is_settled

GROUP_BUDGET_S = 1.5  # of a group, and of each further `GROUP` programs
GROUP = 32
RUN_S = 0.006  # what a run costs beside its calls: its jail, its judge, a kill that comes a little late
MIN_SHARE_S = 0.02  # of one program in a round, however many programs share the budget
MAX_SHARE_S = 0.3
STDIN_INPUTS = 4  # of a round


def default_budget_s(num_programs: int) -> float:
    """The CPU-seconds of a group of so many different programs."""
    return GROUP_BUDGET_S * max(1.0, num_programs / GROUP)


@dataclass(frozen=True, slots=True)
class Round:
    """Programs and calls, by their numbers, and the CPU-seconds that each of the programs has for these calls."""

    programs: tuple[int, ...]
    calls: tuple[int, ...]
    share_s: float

    @property
    def call_cpu_s(self) -> float:
        """The limit of one call: two slow ones may spend the share."""
        return self.share_s / 2


@dataclass(slots=True)
class ObservationRounds:
    """The rounds of one group.

    Args:
        copies: how many completions are each program, of different ones.
        num_examples: the first calls.
        num_inputs: the calls after them.
        is_stdio: whether each call is a run of its own.
        budget_cpu_s: of the whole group.
        complete: whether all programs are observed on all calls, not only the contenders.

    Attributes:
        tests: by program, what is known of each call; None where it has not been made.
        spent_s: CPU-seconds of the budget so far.
        cpu_s: CPU-seconds of everything, compilers too, which no budget bounds.
        settled: whether it ended because nothing left can change which program is best.
    """

    copies: Sequence[int]
    num_examples: int
    num_inputs: int
    is_stdio: bool
    budget_cpu_s: float
    complete: bool = False
    tests: list[list[TestReport | None]] = field(init=False)
    spent_s: float = 0.0
    cpu_s: float = 0.0
    settled: bool = False
    _failed: set[int] = field(default_factory=set)
    _retried: bool = False

    def __post_init__(self) -> None:
        self.tests = [[None] * (self.num_examples + self.num_inputs) for _ in self.copies]

    def first(self) -> Round:
        """The round of all programs."""
        num_calls = self.num_examples + self.num_inputs
        if self.is_stdio:
            num_calls = self.num_examples or min(STDIN_INPUTS, self.num_inputs)
        return self._round(range(len(self.copies)), range(num_calls))

    def add(self, observed: Round, program: int, report: Report) -> None:
        """Note what a program did in a round. What an earlier round knows is kept where this one did not get as far."""
        row = self.tests[program]
        for call, test in zip(observed.calls, report.tests, strict=True):
            if row[call] is None or not _is_cut(test):
                row[call] = test
        compiled = report.compile is not None
        self.cpu_s += report.cpu_ms / 1000
        self.spent_s += (sum(test.cpu_ms for test in report.tests) if compiled else report.cpu_ms) / 1000

    def fail(self, program: int) -> None:
        """A program that could not be run: later rounds are without it."""
        self._failed.add(program)

    def next(self) -> Round | None:
        """The round after those that are done; None at the end."""
        contenders = self._contenders()
        if len(contenders) < (1 if self.complete else 2):
            self.settled = not self._failed
            return None
        if self.budget_cpu_s - self.spent_s < MIN_SHARE_S:
            return None
        made, total = self._num_made(), self.num_examples + self.num_inputs
        cut = [program for program in contenders if self._is_undecided(program)]
        if cut and not self._retried:
            self._retried = True
            return self._round(cut, range(made))
        if made == total or (self.num_inputs and self._is_decided(contenders, total - made)):
            self.settled = not cut and not self._failed
            return None
        return self._round(contenders, range(made, min(total, made + STDIN_INPUTS)))

    def known(self, program: int) -> list[TestReport]:
        """What a program did on every call; what was not made is `skipped`."""
        return [test or not_reached() for test in self.tests[program]]

    @property
    def num_cut(self) -> int:
        """How many programs have not answered all that they were asked for lack of budget."""
        return sum(any(test is not None and _is_cut(test) for test in row) for row in self.tests)

    def _round(self, programs: Iterable[int], calls: Iterable[int]) -> Round:
        chosen = tuple(program for program in programs if program not in self._failed)
        left_s = self.budget_cpu_s - self.spent_s
        share_s = min(MAX_SHARE_S, max(MIN_SHARE_S, left_s / max(1, len(chosen)) - RUN_S))
        return Round(chosen, tuple(calls), round(share_s, 4))

    def _num_made(self) -> int:
        """How many of the first calls have been made."""
        return max((sum(test is not None for test in row) for row in self.tests), default=0)

    def _contenders(self) -> list[int]:
        """The programs that can still pass as many examples as the best; all where that does not matter."""
        running = [program for program in range(len(self.copies)) if program not in self._failed]
        if self.complete:
            return running
        kept = [
            call
            for call in range(self.num_examples)
            if not is_misread([test for program in running if (test := self.tests[program][call]) is not None])
        ]
        passed, possible = [], []
        for program in running:
            tests = [test for call in kept if (test := self.tests[program][call]) is not None]
            passed.append(sum(test.verdict is Verdict.PASSED for test in tests))
            possible.append(passed[-1] + (0 if self._waits(program) else sum(_is_cut(test) for test in tests)))
        best = max(passed, default=0)
        return [program for program, most in zip(running, possible, strict=True) if most >= best]

    def _is_undecided(self, program: int) -> bool:
        """Whether a program was cut short among the examples; without any, before it answered an input."""
        if self._waits(program):
            return False
        examples = self.tests[program][: self.num_examples]
        if examples:
            return any(test is not None and _is_cut(test) for test in examples)
        made = [test for test in self.tests[program] if test is not None]
        return any(map(_is_cut, made)) and not any(test.outcome.startswith(VALUE) for test in made)

    def _waits(self, program: int) -> bool:
        """Whether a call ended by the clock: more CPU time would tell no more of a program that sleeps."""
        return any(
            test is not None and test.verdict is Verdict.TIME_LIMIT and test.detail.startswith("wall")
            for test in self.tests[program]
        )

    def _is_decided(self, contenders: Sequence[int], num_left: int) -> bool:
        rows = [[test.outcome for test in self.known(program)[self.num_examples :]] for program in contenders]
        return not self.complete and is_settled(rows, [float(self.copies[at]) for at in contenders], num_left)


def is_misread(tests: Sequence[TestReport]) -> bool:
    """Whether no program passes an example, and more than half of two or more programs agree on another answer."""
    if len(tests) < 2 or any(test.verdict is Verdict.PASSED for test in tests):
        return False
    answers = Counter(test.outcome for test in tests if test.outcome.startswith(VALUE))
    return max(answers.values(), default=0) * 2 > len(tests)


def _is_cut(test: TestReport) -> bool:
    """Whether a call was not answered for lack of budget, so that more of it might tell more."""
    return test.verdict in (Verdict.TIME_LIMIT, Verdict.SKIPPED)
