"""What the report says of rankers is what hand-made cases say; the report reads and its plots are drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from plaudit.tests_first import SMALLEST_STEP, unit
from training.evaluation.diagnostics import (
    agreement_with_tests,
    by_language,
    calibration,
    discrimination,
    kappa,
    length_bias,
)
from training.evaluation.plots import FILES
from training.evaluation.rankers import (
    SampledProblem,
    best_of_n_curves,
    combined_rewards,
    filtered_rate,
    majority,
    raw_rate,
    sizes_of,
)
from training.evaluation.report import write_report
from training.pipeline.config import EvaluateConfig, PairConfig

SETTINGS = EvaluateConfig(num_candidates=(1, 2, 4), resamples=60, draws=40)


def problem(name: str, passed: str, scores: list[float], language: str = "python") -> SampledProblem:
    """`passed`: a character a sample, 1 or 0. Two generated tests: the second is wrong, so passing it is failing."""
    good = [one == "1" for one in passed]
    return SampledProblem(
        task_id=name,
        language=language,
        completions=["x" * (5 + at) for at in range(len(good))],
        rates=[1.0 if ok else 0.25 for ok in good],
        scores=scores,
        programs=[f"{name}-{'right' if ok else at}" for at, ok in enumerate(good)],
        verdicts=[(ok, not ok) for ok in good],
        kept=(0,),
    )


PROBLEMS = [problem("a", "1000", [4.0, 3.0, 2.0, 1.0]), problem("b", "0110", [1.0, 2.0, 3.0, 4.0])]


def rows_of(sampled: list[SampledProblem]) -> dict[str, dict[str, object]]:
    return {row["ranker"]: row for row in best_of_n_curves(sampled, SETTINGS, 1)}


def test_each_ranker_gets_what_its_choices_are_worth() -> None:
    rows = rows_of(PROBLEMS)
    assert next(iter(rows)) == "mean (no choice)"
    assert list(rows)[-1] == "oracle (pass@N)"
    value = {name: [point["value"] for point in row["points"]] for name, row in rows.items()}  # type: ignore[attr-defined]
    assert value["mean (no choice)"] == pytest.approx([0.375] * 3)
    assert value["reward model"] == pytest.approx([0.375, (0.5 + 0.5) / 2, 0.5])
    assert value["filtered generated tests"][2] == 1.0
    assert value["raw generated tests"] == pytest.approx([0.375] * 3)  # one test right, one wrong: no choice at all
    assert value["oracle (pass@N)"] == pytest.approx([0.375, (0.5 + 5 / 6) / 2, 1.0])
    assert value["majority of identical programs"][2] == pytest.approx((0.25 + 1.0) / 2)
    assert rows["reward model"]["whole"] == pytest.approx([0.375, 0.5, (0.75 + 0.25) / 2, 0.5])
    gap = rows["reward model"]["points"][2]["gap_closed"]  # type: ignore[index]
    assert gap["value"] == pytest.approx((0.75 - 0.5) / (0.75 + 0.5))
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_rankers_that_lack_their_data_are_left_out() -> None:
    bare = [dataclasses.replace(p, verdicts=[], kept=None) for p in PROBLEMS]
    assert not any("tests" in name or "agreement" in name for name in rows_of(bare))
    assert "greedy" not in rows_of(PROBLEMS)
    greedy = [dataclasses.replace(p, greedy=rate) for p, rate in zip(PROBLEMS, (1.0, 0.5), strict=True)]
    assert rows_of(greedy)["greedy"]["points"][0]["value"] == 0.5  # type: ignore[index]


def test_the_combined_reward_is_that_of_the_service() -> None:
    found = combined_rewards(PROBLEMS[0], filtered_rate(PROBLEMS[0]))
    assert found[0] == 1.0 + unit(PROBLEMS[0].scores[0]) / SMALLEST_STEP
    assert [int(value) for value in found] == filtered_rate(PROBLEMS[0])  # the score breaks ties, and no more
    assert raw_rate(PROBLEMS[0]) == [0.5] * 4


def test_majority_counts_equal_programs_of_the_subset() -> None:
    assert majority(PROBLEMS[1], [0, 1, 2]) == [1.0, 2.0, 2.0]


def test_a_model_of_length_alone_is_found_out() -> None:
    by_length = [dataclasses.replace(p, scores=[float(len(c)) for c in p.completions]) for p in PROBLEMS]
    found = length_bias(by_length, SETTINGS, PairConfig(), 1)
    assert found["score"] == pytest.approx(1.0)
    assert found["better_is_longer"]["value"] == 1.0
    assert found["better_is_shorter"]["value"] == 0.0
    assert len(found["points"]) == 8


def test_agreement_with_the_tests_is_counted_and_the_worst_cases_are_named() -> None:
    found = agreement_with_tests(PROBLEMS, lambda score: score / 5)
    assert found["table"] == {"both_pass": 2, "model_only": 2, "tests_only": 1, "both_fail": 3}
    assert found["kappa"] == pytest.approx((5 / 8 - 0.5) / 0.5)
    assert found["high_failures"][0]["task_id"] == "b"
    assert found["high_failures"][0]["probability"] == 0.8
    assert found["low_passes"][0]["task_id"] == "b"
    assert kappa({"both_pass": 3, "model_only": 0, "tests_only": 0, "both_fail": 0}) is None


def test_the_table_by_language_averages_over_columns() -> None:
    more = [problem("c", "1111", [1.0, 2.0, 3.0, 4.0], "cpp"), problem("d", "0000", [1.0] * 4, "rust")]
    rows = by_language([*PROBLEMS, *more], (1, 2, 4))
    assert [row["way"] for row in rows] == [
        "mean of the samples",
        "reward model, best of 2",
        "reward model, best of 4",
        "oracle, pass@4",
    ]
    assert list(rows[0]["languages"]) == ["python", "cpp", "rust"]
    assert rows[2]["languages"] == pytest.approx({"python": 0.5, "cpp": 1.0, "rust": 0.0})
    assert rows[2]["average"] == pytest.approx(0.5)


def test_the_report_is_written_with_all_its_plots(tmp_path: Path) -> None:
    sampled = [*PROBLEMS, problem("c", "0101", [0.0, 2.0, 1.0, 3.0], "cpp")]
    report = {
        "name": "toy",
        "parameters": 12,
        "revision": "sha256:" + "0" * 64,
        "own_checkpoint": True,
        "problems": 3,
        "shared_process": 0,
        "samples": 12,
        "samplers": ["them"],
        "discrimination": discrimination(sampled, SETTINGS, PairConfig(), 1),
        "discrimination_other_models": discrimination([], SETTINGS, PairConfig(), 1),
        "best_of_n": best_of_n_curves(sampled, SETTINGS, 1),
        "languages": by_language(sampled, (2, 4)),
        "calibration": calibration(sampled, lambda score: score / 5),
        "length": length_bias(sampled, SETTINGS, PairConfig(), 1),
        "tests": agreement_with_tests(sampled, lambda score: score / 5),
        "stages": {},
    }
    write_report(report, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "| reward model and filtered tests, as in /reward |" in text
    assert "| | python | cpp | average |" in text
    assert all(f"({name})" in text and (tmp_path / name).read_text().startswith("<?xml") for name in FILES)
    first = {name: (tmp_path / name).read_bytes() for name in FILES}
    write_report(report, tmp_path / "report.md")
    assert first == {name: (tmp_path / name).read_bytes() for name in FILES}

    def no_probability(score: float) -> None:
        return None

    bare = report | {
        "own_checkpoint": False,
        "shared_process": 2,
        "parameters": None,
        "calibration": calibration(sampled, no_probability),
        "tests": agreement_with_tests(sampled, no_probability),
    }
    write_report(bare, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "2 problems are judged by tests that run in the program's own process" in text
    assert "no calibration" in text
    assert "nothing in the training saw" not in text
    assert "model: fail" not in text
    assert not (tmp_path / "calibration.svg").exists()


SETTINGS_16 = dataclasses.replace(SETTINGS, num_candidates=(1, 16))


def test_a_lost_sample_removes_no_column() -> None:
    problems = [SampledProblem(str(at), rates=[1.0] + [0.0] * 15, scores=[1.0] + [0.0] * 15) for at in range(3)]
    for problem in problems:
        problem.completions = problem.programs = [str(at) for at in range(16)]
    del problems[0].rates[-1], problems[0].scores[-1], problems[0].completions[-1]
    assert sizes_of(problems, (1, 8, 16, 32)) == [1, 8, 16]
    assert sizes_of(problems, (18,)) == []
    rows = {row["ranker"]: row for row in best_of_n_curves(problems, SETTINGS_16, 1)}
    assert [point["short"] for point in rows["reward model"]["points"]] == [0, 1]
    assert rows["reward model"]["points"][-1]["value"] == 1.0
    assert rows["oracle (pass@N)"]["points"][-1]["value"] == 1.0
