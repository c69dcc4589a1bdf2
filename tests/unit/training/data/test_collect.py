"""No problem, nor a near copy of one, stands on both sides of a fold; no held-out text reaches the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.collect import collect_problems
from training.data.corpus import functions_of
from training.data.decontaminate import HeldOut
from training.data.folds import assign_folds, cluster
from training.data.near_duplicates import near_duplicates
from training.data.programs import completion_of, program_of
from training.data.public_data import data_file
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem
from training.pipeline.run import Run

WORDS = "reverse sort count merge rotate flatten invert shift scale trim join square halve double".split()  # noqa: SIM905


def problem(number: int, words: str, *, family: str = "HumanEval", name: str = "", canonical: str = "") -> Problem:
    name = name or f"f{number}"
    prompt = f'def {name}(xs):\n    """{words}"""\n'
    return Problem(
        task_id=f"{family}/{number}",
        base_id=f"{family}/{number}",
        prompt=prompt,
        entry_point=name,
        canonical=prompt + canonical if canonical else None,
        test_setup="",
        tests=("assert True",),
        source="own",
        license="Apache-2.0",
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=4), min_size=8, max_size=30),
    seed=st.integers(0, 1000),
    held=st.integers(1, 4),
)
def test_a_cluster_is_never_cut_by_a_fold(texts: list[list[str]], seed: int, held: int) -> None:
    problems = [problem(at, " ".join(words)) for at, words in enumerate(texts)]
    split = config.SplitConfig(test=held, validation=held, validation_other=0)

    folded = assign_folds(problems, split, seed)

    clusters = cluster(problems, split.near_duplicate)
    fold_of: dict[int, set[str]] = {}
    for folded_problem in folded:
        fold_of.setdefault(clusters[folded_problem.task_id], set()).add(folded_problem.fold)
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert folded == assign_folds(problems, split, seed)


def test_near_duplicates_are_found_by_words_name_or_solution() -> None:
    long = "    total = 0\n    for x in xs:\n        total += x * x\n    return total - len(xs)\n"
    problems = [
        problem(0, "rotate the list left by two places"),
        problem(1, "rotate the list left by two places", family="MBPP"),
        problem(2, "count vowels", name="is_prime"),
        problem(3, "tell whether a number has divisors", name="is_prime", family="MBPP"),
        problem(4, "sum of squares without the length", canonical=long),
        problem(5, "a strange quantity", canonical=long, family="MBPP"),
        problem(6, "something else entirely"),
    ]
    clusters = cluster(problems, 0.6)
    numbers = [clusters[p.task_id] for p in problems]
    assert numbers[0] == numbers[1]
    assert numbers[2] == numbers[3]
    assert numbers[4] == numbers[5]
    assert len(set(numbers)) == 4


def test_held_out_text_is_recognised_by_token_runs_and_by_name() -> None:
    body = "    seen = set()\n    for x in xs:\n        if x in seen:\n            return x\n        seen.add(x)\n"
    held = dataclasses.replace(problem(1, "first repeated element", name="first_twice", canonical=body), fold="test")
    guard = HeldOut([held], n=13)
    assert guard.touches("def other(xs):\n" + body)
    assert guard.touches("def first_twice(ys):\n    return ys[0]\n", "first_twice")
    assert not guard.touches("def other(xs):\n    return xs[0]\n", "other")
    assert not HeldOut([dataclasses.replace(held, fold="train")], n=13).touches("def other(xs):\n" + body)


def test_corpus_functions_end_their_prompt_after_the_docstring() -> None:
    text = (
        "class A:\n    def f(self, x):\n        '''Doc.'''\n        return x\n\n"
        "def g(y):\n    return y\n\ndef h(): pass\n"
    )
    found = {f.name: f for f in functions_of(text)}
    assert found["f"].prompt == "def f(self, x):\n    '''Doc.'''\n"
    assert found["f"].completion == "    return x\n"
    assert found["g"].prompt == "def g(y):\n"
    assert not found["g"].documented
    assert "h" not in found


TASK = problem(1, "Twice every element.", name="twice")


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        (TASK.prompt + "    return [2 * x for x in xs]\n", "    return [2 * x for x in xs]\n"),
        ("import math\n\ndef twice(xs):\n    '''Other words.'''\n    return xs\n", "    return xs\n"),
        ("def twice(xs):\n    # a note\n    return xs\n", "    # a note\n    return xs\n"),
        (
            "def help(x):\n    return x\n\ndef twice(xs):\n    return help(xs)\n",
            "    return help(xs)\n\ndef help(x):\n    return x\n",
        ),
        ("def twice(xs):\n    return xs[\n", "    return xs[\n"),
        ("def thrice(xs):\n    return xs\n", "def thrice(xs):\n    return xs\n"),
        ("twice = lambda xs: xs\n", "twice = lambda xs: xs\n"),
    ],
)
def test_every_way_to_write_a_program_becomes_what_follows_the_prompt(solution: str, expected: str) -> None:
    assert completion_of(TASK, solution).replace("\n\n\n", "\n\n") == expected


def test_equal_text_is_one_program_and_other_text_another() -> None:
    program = program_of(TASK, "a", "sample", "own", "MIT")
    assert program.program_id == program_of(TASK, "a", "mutant", "other", "MIT").program_id
    assert program.program_id != program_of(TASK, "b", "sample", "own", "MIT").program_id


@pytest.mark.data
def test_the_public_data_splits_without_a_leak(tmp_path: Path) -> None:
    import os

    recipe = dataclasses.replace(Recipe(), data=os.environ.get("PLAUDIT_DATA", "../shared/data"))
    data_file(recipe.data, "problems.python.jsonl.gz")
    summary = collect_problems(recipe, Run(tmp_path, quiet=True))
    assert int(str(summary["test"])) >= 30
    folds: dict[str, set[str]] = {}
    for row in read_jsonl(tmp_path / "problems.jsonl"):
        folds.setdefault(row["base_id"], set()).add(row["fold"])
        folds.setdefault(row["entry_point"].lower(), set()).add(row["fold"])
    assert all(len(found) == 1 for found in folds.values())


@given(
    st.lists(st.frozensets(st.sampled_from("abcdefgh"), max_size=6), max_size=12),
    st.sampled_from([0.2, 0.5, 0.6, 2 / 3, 0.75, 1.0]),
)
def test_near_duplicates_equal_a_comparison_of_all_pairs(sets: list[frozenset[str]], threshold: float) -> None:
    compared = {
        (i, j)
        for j, right in enumerate(sets)
        for i, left in enumerate(sets[:j])
        if left and right and len(left & right) / len(left | right) >= threshold
    }
    assert set(near_duplicates(sets, threshold)) == compared


def test_a_large_cluster_is_never_the_whole_validation_share() -> None:
    same = [problem(at, f"{word} the list", name="solve") for at, word in enumerate(WORDS[:8])]
    others = [problem(20 + at, f"{word} {word}ed {word}ing {word}er") for at, word in enumerate(WORDS[:12])]
    split = config.SplitConfig(test=0, validation=0, validation_other=0, validation_share=0.1)
    folds = {p.task_id: p.fold for p in assign_folds([*same, *others], split, 1)}
    assert sum(fold == "validation" for fold in folds.values()) == 2
    assert all(folds[p.task_id] == "train" for p in same)
