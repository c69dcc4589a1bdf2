"""HumanEval(+): `task_id, prompt, canonical_solution, entry_point, test`, where `test` defines check(candidate)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from training.data.adapters.base import DatasetEntry
from training.pipeline import config
from training.pipeline.records import Problem


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        task_id = str(row["task_id"])
        yield DatasetEntry(
            Problem(
                task_id=task_id,
                base_id=task_id,
                prompt=row["prompt"],
                entry_point=row["entry_point"],
                canonical=row["prompt"] + row["canonical_solution"],
                test_setup="",
                tests=(row["test"],),
                source="HumanEval" if hub.adapter == "humaneval" else "HumanEval+",
                license="MIT" if hub.adapter == "humaneval" else "Apache-2.0",
                kind="check",
            )
        )
