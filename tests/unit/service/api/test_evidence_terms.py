"""The terms `examples` and `behavior`, and `auto`: earlier evidence always decides, and what is missing is never 0."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import NoWorker
from plaudit.grading import Verdict
from plaudit.schemas import CompletionScore, Evidence, ResultError, RewardItem, RewardResult, RewardSpec, ScoreResult
from sandbox.judge.observe import not_reached
from sandbox.judge.report import build_report
from sandbox.types import Report, TestReport
from service.api.dispatch.fleet import Fleet
from service.api.handlers.evidence import Observed, is_misread, whole_program
from service.api.handlers.evidence_terms import margin
from service.api.handlers.reward_terms import join, order
from service.jobs import Failed, JobState
from service.queue.producer import Worker
from service.settings import Settings

AUTO = RewardSpec.model_validate({"combine": "auto"})
LOST = Failed(JobState.FAILED, "poisoned", "the executor was lost", False)


def outcome(text: str, *, passed: bool = False) -> TestReport:
    return TestReport(Verdict.PASSED if passed else Verdict.WRONG_ANSWER, outcome=text)


def report(passes: str, answers: str) -> Report:
    """`passes`: a `1` for each example that passes; `answers`: a letter for what is answered to each input."""
    tests = [outcome(f"v:{digit}", passed=digit == "1") for digit in passes] + [outcome(f"v:{one}") for one in answers]
    return build_report(tests, len(tests), "split", "strong", flags=set())


def joined(
    reports: list[Report | Failed | None], num_examples: int, num_inputs: int, scores: list[float]
) -> RewardResult:
    reason = ResultError(code="no_examples", detail="none")
    observed = Observed(
        reports,
        range(num_examples),
        num_examples,
        Evidence(inputs=num_inputs),
        None if num_examples else reason,
        None if num_inputs else reason,
    )
    item = RewardItem(prompt="p", completions=["same"] * len(reports))
    scored = ScoreResult(completions=[CompletionScore(status="ok", score=one, trainable=True) for one in scores])
    return join(AUTO, item, {"rm": scored}, None, observed)


rows = st.tuples(st.text("01", min_size=5, max_size=5), st.text("abc", min_size=9, max_size=9), st.floats(-1e6, 1e6))


@given(st.lists(rows, min_size=2, max_size=12))
def test_no_later_evidence_outweighs_one_example(group: list[tuple[str, str, float]]) -> None:
    result = joined([report(passes, answers) for passes, answers, _ in group], 5, 9, [score for *_, score in group])
    passed = [group[index][0].count("1") for index in order(result)]
    assert passed == sorted(passed, reverse=True)


def test_evidence_that_the_group_lacks_is_passed_over_and_the_model_decides() -> None:
    result = joined([report("", ""), report("", "")], 0, 0, [-1.0, 2.0])
    assert order(result) == [1, 0]
    assert {one.components["behavior"].value for one in result.completions} == {None}
    assert result.completions[1].components["rm"].decided


def test_a_program_that_the_service_lost_has_no_reward() -> None:
    result = joined([report("11", "ab"), LOST, None], 2, 2, [0.0, 9.0, 9.0])
    assert [one.status for one in result.completions] == ["ok", "infra_error", "ok"]
    assert [one.components["examples"].value for one in result.completions] == [1.0, None, 0.0]
    assert order(result) == [0, 2, 1]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [("aab", True), ("aabb", False), ("a", False), ("abc", False)],
)
def test_an_example_is_misread_only_if_most_agree_otherwise(answers: str, expected: bool) -> None:
    assert is_misread([outcome(f"v:{one}") for one in answers]) is expected
    assert not is_misread([*(outcome(f"v:{one}") for one in answers), outcome("v:x", passed=True)])
    assert not is_misread([outcome("e:ValueError") for _ in answers])


def test_a_body_alone_is_run_after_the_prompt() -> None:
    prompt, body = "def f(x):\n", "    return x\n"
    assert whole_program(prompt, body, "f") == prompt + body
    assert whole_program(prompt, prompt + body, "f") == prompt + body
    assert whole_program("Write f(x).", body, "f") == body


def test_executors_that_do_not_know_the_kind_get_no_such_jobs() -> None:
    monitor = Mock(broker=True)
    fleet = Fleet([monitor], Settings())
    old, new = {"isolation": "strong"}, {"isolation": "strong", "suites": ["assert", "observe"]}
    monitor.workers = [Worker("new", "execute", new)]
    fleet.require_observers()
    monitor.workers.append(Worker("old", "execute", old))
    fleet.require_executors()
    with pytest.raises(NoWorker) as refused:
        fleet.require_observers()
    assert refused.value.retryable


def sure(reports: list[Report | Failed | None], kept: int, dropped: int = 0, *, settled: bool = True) -> float | None:
    evidence = Evidence(inputs=len("xyz"), settled=settled)
    return margin(Observed(reports, range(kept), kept + dropped, evidence), 0)


def test_what_has_not_run_makes_a_choice_unsure() -> None:
    alike = [report("1", "aaa")] * 2
    assert sure([*alike], 1) == 1.0
    assert sure([*alike, LOST, LOST], 1) == pytest.approx(0.5)
    cut = build_report([TestReport(Verdict.TIME_LIMIT, outcome="t:time_limit")] * 4, 4, "split", "strong", flags=set())
    assert sure([*alike, cut, cut], 1, settled=False) == pytest.approx(0.5, abs=0.01)


def test_an_example_that_nobody_passes_makes_a_choice_unsure() -> None:
    assert sure([report("0", "aaa")] * 3, 0, 1) == pytest.approx(0.5)
    assert sure([report("10", "aaa")] * 3, 1, 1) == pytest.approx(2 / 3)


def test_one_alone_without_examples_agrees_with_nobody() -> None:
    assert sure([report("", "aaa")], 0) is None
    assert sure([report("1", "aaa")], 1) == 1.0


def test_what_the_examples_have_settled_is_sure_without_inputs() -> None:
    skipped = [not_reached()] * 3
    right = build_report([outcome("v:1", passed=True), *skipped], 4, "bytes", "strong", flags=set())
    wrong = build_report([outcome("v:2"), *skipped], 4, "bytes", "strong", flags=set())
    value = sure([right, right, wrong], 1)
    assert value is not None
    assert value > 0.95
