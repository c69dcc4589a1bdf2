"""Rounds of observation: who is observed on what, within one budget, and when it ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from plaudit.grading import Verdict
from sandbox.types import CompileReport, Report, TestReport
from service.evidence.behavior import behavior
from service.evidence.rounds import MIN_SHARE_S, RUN_S, ObservationRounds, Round, is_misread

Answer = Callable[[int, int], TestReport]  # of a program to a call
PASSED = TestReport(Verdict.PASSED, outcome="v:right")
WRONG = TestReport(Verdict.WRONG_ANSWER, outcome="v:wrong")
SLOW = TestReport(Verdict.TIME_LIMIT, outcome="t:time_limit")


def value(answer: str) -> TestReport:
    return TestReport(Verdict.PASSED, outcome=f"v:{answer}")


def report_of(tests: Sequence[TestReport], cpu_s: float, compile_s: float = 0.0) -> Report:
    ran = tuple(replace(test, cpu_ms=1000 * cpu_s / len(tests)) for test in tests)
    compiled = CompileReport(True, 1000 * compile_s, "", "") if compile_s else None
    cpu_ms = 1000 * (cpu_s + compile_s)
    return Report(Verdict.PASSED, 0, len(ran), ran, "split", "strong", compile=compiled, cpu_ms=cpu_ms)


def rounds_of(rounds: ObservationRounds, answer: Answer, cost_s: float = 0.001) -> list[Round]:
    """All rounds, each program answering each call."""
    made: list[Round] = []
    current: Round | None = rounds.first()
    while current is not None:
        made.append(current)
        for program in current.programs:
            rounds.add(current, program, report_of([answer(program, call) for call in current.calls], cost_s))
        current = rounds.next()
    return made


def group(num: int, examples: int, inputs: int, **options: object) -> ObservationRounds:
    fields = {"is_stdio": False, "budget_cpu_s": 1.5} | options
    return ObservationRounds([1] * num, examples, inputs, **fields)  # type: ignore[arg-type]


def test_functions_are_observed_on_everything_in_one_round() -> None:
    rounds = group(32, 2, 10)
    (only,) = rounds_of(rounds, lambda program, call: PASSED)
    assert (only.programs, only.calls) == (tuple(range(32)), tuple(range(12)))
    assert only.share_s == pytest.approx(1.5 / 32 - RUN_S, abs=1e-4)
    assert rounds.settled
    assert rounds.num_cut == 0


@pytest.mark.parametrize("num", [1, 2, 7, 32])
@pytest.mark.parametrize("is_stdio", [False, True])
def test_the_shares_of_all_rounds_stay_within_the_budget(num: int, is_stdio: bool) -> None:
    """Every program spends all that it is given, whatever it answers."""
    rounds = group(num, 2, 12, is_stdio=is_stdio)
    current: Round | None = rounds.first()
    while current is not None:
        for program in current.programs:
            tests = [SLOW if program % 2 else PASSED for _ in current.calls]
            rounds.add(current, program, report_of(tests, current.share_s + RUN_S))
        current = rounds.next()
    assert rounds.spent_s <= 1.5 + (MIN_SHARE_S + RUN_S) * (num if is_stdio else 0) + 1e-3


def test_programs_cut_short_are_tried_once_more_if_they_can_still_win() -> None:
    """0 passes; 1 was cut short and may pass; 2 was cut short after it had failed."""
    answers = {0: [PASSED, PASSED], 1: [PASSED, SLOW], 2: [WRONG, SLOW]}
    rounds = group(3, 2, 0)
    first, second = rounds_of(rounds, lambda program, call: answers[program][call])
    assert first.programs == (0, 1, 2)
    assert second.programs == (1,)
    assert second.share_s > first.share_s * 0.5
    assert rounds.num_cut == 2
    assert not rounds.settled


def test_what_a_shorter_second_try_does_not_reach_stays_known() -> None:
    rounds = group(2, 2, 0)
    first = rounds.first()
    rounds.add(first, 0, report_of([PASSED, SLOW], 0.1))
    rounds.add(first, 1, report_of([PASSED, SLOW], 0.1))
    second = rounds.next()
    assert second is not None
    rounds.add(second, 0, report_of([SLOW, PASSED], 0.1))
    assert [test.verdict for test in rounds.known(0)] == [Verdict.PASSED, Verdict.PASSED]


def test_programs_on_stdin_get_inputs_only_while_they_can_win() -> None:
    def answer(program: int, call: int) -> TestReport:
        return (PASSED if program < 3 else WRONG) if call < 2 else value(str(program))

    made = rounds_of(group(10, 2, 8, is_stdio=True), answer)
    assert made[0].calls == (0, 1)
    assert {one.programs for one in made[1:]} == {(0, 1, 2)}
    assert [one.calls for one in made[1:]] == [(2, 3, 4, 5), (6, 7, 8, 9)]


def test_one_contender_settles_it() -> None:
    rounds = group(10, 2, 8, is_stdio=True)
    made = rounds_of(rounds, lambda program, call: PASSED if program == 4 else WRONG)
    assert len(made) == 1
    assert rounds.settled


def test_a_lead_that_the_inputs_left_cannot_change_settles_it() -> None:
    rounds = ObservationRounds([30, 1, 1], 0, 24, is_stdio=True, budget_cpu_s=100.0)
    made = rounds_of(rounds, lambda program, call: value(f"{program} {call}"))
    assert 1 < len(made) < 6
    assert rounds.settled


@pytest.mark.parametrize("seed", range(40))
def test_what_is_settled_is_what_all_inputs_would_say(seed: int) -> None:
    draw = random.Random(seed)
    copies = [draw.randint(1, 20) for _ in range(4)]
    favourite = draw.random()
    table = [
        [value(str(call) if draw.random() < favourite else f"{call} {program}") for call in range(24)]
        for program in range(4)
    ]
    rounds = ObservationRounds(copies, 0, 24, is_stdio=True, budget_cpu_s=1000.0)
    rounds_of(rounds, lambda program, call: table[program][call])

    def best(rows: Sequence[Sequence[TestReport]]) -> int:
        whole = [
            [test.outcome for test in row] for row, number in zip(rows, copies, strict=True) for _ in range(number)
        ]
        values = behavior(whole)
        starts = [sum(copies[:at]) for at in range(4)]
        return max(range(4), key=lambda at: values[starts[at]])

    if rounds.settled:
        assert best([rounds.known(program) for program in range(4)]) == best(table)


def test_a_term_that_needs_all_values_observes_all_programs() -> None:
    made = rounds_of(group(5, 1, 6, is_stdio=True, complete=True), lambda program, call: WRONG if program else PASSED)
    assert all(one.programs == tuple(range(5)) for one in made)
    assert sum(len(one.calls) for one in made) == 7


def test_an_example_that_nobody_passes_and_most_contradict_decides_nothing() -> None:
    assert is_misread([WRONG, WRONG, TestReport(Verdict.RUNTIME_ERROR, outcome="e:E")])
    assert not is_misread([WRONG, PASSED])
    assert not is_misread([WRONG])
    rounds = group(3, 2, 4, is_stdio=True)
    made = rounds_of(rounds, lambda program, call: WRONG if call == 0 else PASSED if call == 1 else value(str(program)))
    assert made[1].programs == (0, 1, 2)


def test_a_program_that_could_not_be_run_is_left_out_of_later_rounds() -> None:
    rounds = group(3, 0, 12, is_stdio=True)
    first = rounds.first()
    rounds.fail(1)
    for program in (0, 2):
        rounds.add(first, program, report_of([value(f"{program} {call}") for call in first.calls], 0.001))
    second = rounds.next()
    assert second is not None
    assert second.programs == (0, 2)


def test_compilers_are_in_the_cost_and_not_in_the_budget() -> None:
    rounds = group(4, 1, 4, is_stdio=True)
    first = rounds.first()
    for program in range(4):
        rounds.add(first, program, report_of([PASSED], 0.01, compile_s=1.0))
    assert rounds.next() is not None
    assert rounds.cpu_s == pytest.approx(4.04)
    assert rounds.spent_s == pytest.approx(0.04)
