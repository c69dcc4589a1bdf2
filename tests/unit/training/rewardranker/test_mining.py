"""Mining by hand: what counts as a high-scoring failure, and what each mode adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import UsageError
from training.data.judge_task import JudgeTask
from training.data.programs import program_of
from training.pipeline.config import IterateConfig, Recipe, VerifyConfig, WorldConfig
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run
from training.rewardranker.microworld import draw_tasks, microworld_problem, write_with_slips
from training.rewardranker.mining import execute_completions, merge_programs, mine, quantile, recorded_completions

PROBLEM = Problem(
    task_id="T/1",
    base_id="T/1",
    prompt="def f(x):\n",
    entry_point="f",
    canonical=None,
    test_setup="",
    tests=("assert f(1) == 1",),
    source="own",
    license="Apache-2.0",
)
RECIPE = dataclasses.replace(Recipe(), iterate=IterateConfig(hard_quantile=0.5, max_positives=1))


def program(name: str, rate: float, copies: int = 1, task: str = "T/1") -> ProgramRecord:
    made = program_of(PROBLEM, name, "sample", "own", "Apache-2.0", completion=name, pass_rate=rate)
    return dataclasses.replace(made, program_id=name, task_id=task, copies=copies)


def test_a_failure_is_high_scoring_from_the_quantile_of_its_own_problems_passing_programs() -> None:
    programs = [program("good", 1.0), program("better", 1.0), program("low", 0.5), program("high", 0.0, copies=3)]
    found = mine({"T/1": programs}, {"good": 1.0, "better": 3.0, "low": 2.9, "high": 3.0}, {}, RECIPE)
    assert [p.program_id for p in found.hard] == ["high"]
    assert (found.num_completions, found.num_failures, found.num_hard) == (6, 4, 3)
    assert [p.program_id for p in found.positives] == ["good"]  # the lowest-scored of two


def test_a_problem_without_a_passing_program_is_held_to_its_reference() -> None:
    executed = {"T/1": [program("good", 1.0)], "T/2": [program("a", 0.0, task="T/2"), program("b", 0.0, task="T/2")]}
    scores = {"good": -5.0, "a": 1.0, "b": 0.9}
    assert [p.program_id for p in mine(executed, scores, {"T/2": 1.0}, RECIPE).hard] == ["a"]
    assert mine(executed, scores, {}, RECIPE).hard == ()  # scores of two prompts cannot be compared


def test_the_modes_add_failures_alone_or_positives_too() -> None:
    found = mine({"T/1": [program("good", 1.0), program("bad", 0.0)]}, {"good": 1.0, "bad": 2.0}, {}, RECIPE)
    assert [p.program_id for p in found.added("hard_negatives")] == ["bad"]
    assert [p.program_id for p in found.added("self_training")] == ["bad", "good"]
    with pytest.raises(UsageError, match="self_training"):
        found.added("both")


def test_a_program_that_is_known_already_counts_again_and_stays_one_row() -> None:
    found = merge_programs([program("a", 1.0, copies=2)], [program("a", 1.0, copies=3), program("b", 0.0)])
    assert [(p.program_id, p.copies) for p in found] == [("a", 5), ("b", 1)]


def test_completions_are_judged_where_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def judged(tasks: Iterable[JudgeTask], settings: VerifyConfig, url: str) -> Iterator[dict[str, Any]]:
        asked.append(url)
        for task in tasks:
            yield {"key": task.key, "program_id": task.program_id, "status": "ok", "pass_rate": 1.0}

    monkeypatch.setattr("training.data.judging.judge_remotely", judged)
    recipe = dataclasses.replace(RECIPE, verify=VerifyConfig(service="http://127.0.0.1:9"))
    found = execute_completions(recipe, Run(tmp_path, quiet=True), {"T/1": PROBLEM}, {"T/1": ["    return 1\n"]})
    assert asked == ["http://127.0.0.1:9"]
    assert [program.pass_rate for program in found["T/1"]] == [1.0]


def test_the_quantile_by_hand() -> None:
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.25) == 2.0
    assert quantile([5.0], 0.99) == 5.0
    assert quantile([], 0.5) is None


def test_a_file_of_records_that_is_not_there_is_a_mistake_not_an_empty_one() -> None:
    with pytest.raises(UsageError, match=r"no\.jsonl"):
        recorded_completions("no.jsonl", {})
    assert recorded_completions("", {}) == {}


def test_whole_families_of_the_world_are_held_out_and_its_tests_are_true_of_its_references() -> None:
    world = WorldConfig(problems=300, test=0.2, validation=0.2)
    problems = [microworld_problem(task, world, 1) for task in draw_tasks(world, 1)]
    assert {p.fold for p in problems} == {"train", "validation", "test"}
    assert len({(p.base_id, p.fold) for p in problems}) == len({p.base_id for p in problems})
    for problem in problems[:50]:
        namespace: dict[str, object] = {}
        exec("\n".join([problem.canonical or "", *problem.tests]), namespace)


def test_without_slips_what_is_written_is_the_reference_and_with_them_it_often_is_not() -> None:
    import random

    world = WorldConfig(problems=200)
    tasks = draw_tasks(world, 1)
    references = [(microworld_problem(t, world, 1).canonical or "").removeprefix(t.prompt) for t in tasks]
    assert [write_with_slips(task, 0.0, random.Random(1)) for task in tasks] == references
    slips = sum(
        write_with_slips(t, 0.2, random.Random(n)) != r for n, (t, r) in enumerate(zip(tasks, references, strict=True))
    )
    assert 60 < slips < 160
