"""AceCodePair-300K: `id, instruction, input, chosen, rejected`. Rows of one question stand together.

There are no tests and no pass rates in it: the programs come without a label, and only their order is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from plaudit.extract import last_fence
from training.data.adapters import Entry
from training.generation.sample import merged
from training.pipeline import config
from training.pipeline.records import Problem

SOURCE = "TIGER-Lab/AceCodePair-300K"


def entries(rows: Iterable[dict[str, Any]], hub: config.Hub) -> Iterator[Entry]:
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
        made = [(last_fence(text) or text, text, f"{task_id}#{at}", SOURCE, None) for at, text in enumerate(texts)]
        programs = merged(problem, made, "MIT", independent=False)
        names = {sample: program.program_id for program in programs for sample in program.sample_ids}
        pairs = [(names[f"{task_id}#{2 * at}"], names[f"{task_id}#{2 * at + 1}"]) for at in range(len(members))]
        yield Entry(problem, tuple(programs), tuple(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1])))


def _prompt(row: dict[str, Any]) -> str:
    return "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
