"""Cross-validation: parts are disjoint and whole, means are over seeds, and differences are paired by problem."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from training.data.folds import assign_folds
from training.data.programs import program_of
from training.evaluation.crossval import compare, crossval_markdown, summarize
from training.evaluation.instruct_pairs import by_language, instruct_answers
from training.pipeline.config import EvaluateConfig, Recipe, SplitConfig
from training.pipeline.records import Problem

RECIPE = Recipe(evaluate=EvaluateConfig(resamples=200))


def problem(number: int, language: str = "python") -> Problem:
    prompts = {
        "python": f'def f{number}(x):\n    """Task {number}."""\n',
        "java": f"class F{number} {{\n  int f() {{\n",
    }
    return Problem(
        task_id=f"HumanEval/{number}" if language == "python" else f"X/{language}/{number}",
        base_id=f"HumanEval/{number}",
        prompt=prompts[language],
        entry_point=f"f{number}" if language == "python" else "",
        canonical=None,
        test_setup="",
        tests=("assert True",),
        source="own",
        license="Apache-2.0",
        language=language,
    )


def test_each_sampled_problem_is_in_the_test_fold_of_exactly_one_part() -> None:
    words = ["river", "stone", "cloud", "lemon", "tiger", "piano", "candle", "garden", "window", "forest", "bridge"]
    problems = [dataclasses.replace(problem(n), prompt=f'def f{n}(x):\n    """{w}"""\n') for n, w in enumerate(words)]
    held = []
    for part in range(3):
        split = SplitConfig(parts=3, part=part, validation=0, validation_other=0)
        folds = {p.task_id: p.fold for p in assign_folds(problems, split, 1)}
        held.append({task_id for task_id, fold in folds.items() if fold == "test"})
    assert set().union(*held) == {p.task_id for p in problems}
    assert sum(map(len, held)) == len(problems)
    assert {len(part) for part in held} <= {3, 4}


TRANSLATED = {
    name: dataclasses.replace(problem(1, language), task_id=name, base_id=base)
    for name, language, base in (("a", "python", "A"), ("a-java", "java", "A"), ("b", "python", "B"))
}


def numbers(shift: float) -> dict[str, Any]:
    return {
        "problems": {
            "a": {"pair_accuracy": 0.6 + shift, "auc": 0.7},
            "b": {"pair_accuracy": 0.8 + shift, "auc": None},
            "c": {"pair_accuracy": None, "auc": None},
        },
        "best_of_n": {name: {"1": 0.2, "4": 0.4 + shift} for name in "abc"},
        "instruct": {
            "a": {"pair_accuracy": 0.5 + shift},
            "a-java": {"pair_accuracy": 1.0},
            "b": {"pair_accuracy": 0.25},
            "c": {"pair_accuracy": None},
        },
    }


def test_a_problem_counts_once_whatever_the_seeds_and_translations() -> None:
    report = summarize({1: numbers(0.0), 2: numbers(0.1)}, TRANSLATED, RECIPE)
    assert report["pair_accuracy"]["value"] == pytest.approx(0.75)
    assert report["pair_accuracy"]["problems"] == 2
    assert report["pair_accuracy"]["seeds"] == pytest.approx([0.7, 0.8])
    assert report["auc"]["problems"] == 1
    assert report["best_of_n"]["4"]["value"] == pytest.approx(0.45)
    assert report["instruct"]["all"]["value"] == pytest.approx(((0.55 + 1.0) / 2 + 0.25) / 2)
    assert report["instruct"]["all"]["problems"] == 2
    assert report["instruct"]["java"]["value"] == 1.0
    text = crossval_markdown(report)
    assert "0.750" in text
    assert "assistants' answers: java" in text


def test_answers_are_reported_by_language_and_every_problem_counts_once() -> None:
    values = {"a": 0.5, "a-java": 1.0, "b": 0.25}
    found = by_language(values, TRANSLATED, RECIPE.evaluate, 1)
    assert {name: (round(one["value"], 6), one["problems"]) for name, one in found.items()} == {
        "all": (0.5, 2),
        "python": (0.375, 2),
        "java": (1.0, 1),
    }


def test_differences_are_paired_by_problem() -> None:
    before = summarize({1: numbers(0.0)}, TRANSLATED, RECIPE)
    after = summarize({1: numbers(0.1)}, TRANSLATED, RECIPE)
    found = compare(before, after, resamples=200)["pair_accuracy"]
    assert found["value"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.1)
    assert found["high"] == pytest.approx(0.1)
    assert compare(before, before, resamples=50)["auc"]["value"] == 0.0


def test_answers_of_assistants_hold_the_program_in_prose_and_say_nothing_of_the_verdict() -> None:
    problems = {p.task_id: dataclasses.replace(p, fold="test") for p in (problem(1), problem(2, "java"))}
    bodies = {"HumanEval/1": "    return x\n", "X/java/2": "    return 1;\n  }\n}\n"}
    programs = []
    for task_id, body in bodies.items():
        for rate in (0.0, 1.0):
            text = body if rate else body.replace("return", "return -")
            one = program_of(problems[task_id], problems[task_id].prompt + text, "sample", "own", "", pass_rate=rate)
            programs.append(one)
    asked, answers = instruct_answers(problems, programs)
    assert len(answers) == 4
    for answer, program in zip(answers, programs, strict=True):
        fence = f"```{problems[answer.task_id].language}\n"
        assert fence in answer.completion
        assert not answer.completion.startswith(fence)
        assert program.completion.strip() in answer.completion
        assert problems[answer.task_id].prompt.strip() in asked[answer.task_id].prompt
    iid = [dataclasses.replace(program, iid_copies=1) for program in programs]
    assert instruct_answers(problems, iid) == ({}, [])
