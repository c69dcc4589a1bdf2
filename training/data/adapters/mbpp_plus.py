"""MBPP+: MBPP's fields and `test`, a program that calls the function on every input of EvalPlus, judged as one test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from training.data.adapters.base import DatasetEntry
from training.data.adapters.mbpp import problem_of
from training.pipeline import config


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        problem = problem_of(row)
        yield DatasetEntry(
            dataclasses.replace(
                problem, tests=(row["test"],), test_setup="", kind="script", source="MBPP+", license="Apache-2.0"
            )
        )
