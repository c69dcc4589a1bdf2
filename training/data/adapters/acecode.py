"""AceCode-87K: `id, source, question, test_cases, inferences [{model_name, completion_id, completion, pass_rate}]`.

`pass_rate` divides by all tests that were generated, those that the filter removed included, so a perfect program may
show less than 1. It is not used unless `hub.shipped_rates` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from training.data.adapters.base import DatasetEntry
from training.data.programs import SampledText, distinct_programs, example_prompt, solution_of
from training.data.test_formats import entry_point_of
from training.pipeline import config
from training.pipeline.records import Problem, ProgramRecord


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
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
        yield DatasetEntry(problem, tuple(_programs(problem, row.get("inferences") or (), hub)))


def _programs(problem: Problem, inferences: Iterable[dict[str, Any]], hub: config.HubConfig) -> list[ProgramRecord]:
    samples = []
    for inference in inferences:
        text, rate = str(inference["completion"]), inference.get("pass_rate")
        chat = "```" in text
        solution = solution_of(problem, text, chat=True) if chat else text
        name = f"{problem.task_id}#{inference['completion_id']}"
        shipped = float(rate) if hub.shipped_rates and rate is not None else None
        samples.append(SampledText(solution, text, name, str(inference["model_name"]), shipped))
    return distinct_programs(problem, samples, "MIT")
