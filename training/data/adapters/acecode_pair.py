"""AceCodePair-300K: `id, instruction, input, chosen, rejected`. Rows of one question stand together.

It has no tests and no pass rates: the programs come without a label, and only their order is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from plaudit.extract import last_fence
from training.data.adapters.base import DatasetEntry
from training.data.programs import SampledText, distinct_programs
from training.pipeline import config
from training.pipeline.records import Problem

SOURCE = "TIGER-Lab/AceCodePair-300K"


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for prompt, group in itertools.groupby(rows, key=_prompt):  # ids may name rows: a question must not be in two folds
        members = list(group)
        task_id = str(members[0]["id"])
        problem = Problem(
            task_id=task_id,
            base_id=task_id,
            prompt=prompt,
            entry_point="",
            canonical=None,
            test_setup="",
            tests=(),
            source=SOURCE,
            license="MIT",
        )
        texts = [str(row[side]) for row in members for side in ("chosen", "rejected")]
        samples = [
            SampledText(last_fence(text) or text, text, f"{task_id}#{at}", SOURCE) for at, text in enumerate(texts)
        ]
        programs = distinct_programs(problem, samples, "MIT", independent=False)
        names = {sample_id: program.program_id for program in programs for sample_id in program.sample_ids}
        pairs = [(names[f"{task_id}#{2 * at}"], names[f"{task_id}#{2 * at + 1}"]) for at in range(len(members))]
        yield DatasetEntry(problem, tuple(programs), tuple(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1])))


def _prompt(row: dict[str, Any]) -> str:
    return "\n\n".join(text for text in (row["instruction"], row.get("input")) if text)
