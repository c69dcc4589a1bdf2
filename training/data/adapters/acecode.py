"""AceCode-87K: `id, source, question, test_cases, inferences [{model_name, completion_id, completion, pass_rate}]`.

`pass_rate` divides by all tests that were once imagined, those that the filter removed included, so that a perfect
program may show less than 1; unless `hub.shipped_rates` asks for it, it is not taken over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from training.data.adapters import Entry
from training.data.test_formats import entry_point_of
from training.generation.sample import merged, solution_of
from training.pipeline import config
from training.pipeline.records import Problem, Program, example_prompt


def entries(rows: Iterable[dict[str, Any]], hub: config.Hub) -> Iterator[Entry]:
    for row in rows:
        tests = tuple(row["test_cases"])
        if not tests:
            continue
        problem = Problem(
            task_id=str(row["id"]),
            base_id=str(row["id"]),
            prompt=example_prompt(row["question"], tests[0]),
            entry_point=entry_point_of(tests),
            canonical=None,
            test_setup="",
            tests=tests,
            source=str(row["source"]),
            license="MIT",
        )
        yield Entry(problem, tuple(_programs(problem, row.get("inferences") or (), hub)))


def _programs(problem: Problem, inferences: Iterable[dict[str, Any]], hub: config.Hub) -> list[Program]:
    made = []
    for one in inferences:
        text, rate = str(one["completion"]), one.get("pass_rate")
        chat = "```" in text
        solution = solution_of(problem, text, chat=True) if chat else text
        name = f"{problem.task_id}#{one['completion_id']}"
        shipped = float(rate) if hub.shipped_rates and rate is not None else None
        made.append((solution, text, name, str(one["model_name"]), shipped))
    return merged(problem, made, "MIT")
