"""MBPP, both forms: `task_id, text, code, test_list, test_setup_code` (full), `prompt, test_imports` (sanitized).

The published few-shot convention shows the tests to the model. One test is shown here, because it names the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from training.data.adapters.base import DatasetEntry
from training.data.programs import example_prompt
from training.data.test_formats import entry_point_of
from training.pipeline import config
from training.pipeline.records import Problem


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        yield DatasetEntry(problem_of(row))


def problem_of(row: dict[str, Any]) -> Problem:
    """The problem with its three or so asserts."""
    tests = tuple(row["test_list"])
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    return Problem(
        task_id=f"MBPP/{row['task_id']}",
        base_id=f"MBPP/{row['task_id']}",
        prompt=example_prompt(row.get("text") or row["prompt"], tests[0]),
        entry_point=entry_point_of(tests),
        canonical=row["code"],
        test_setup=setup,
        tests=tests,
        source="MBPP",
        license="CC-BY-4.0",
    )
