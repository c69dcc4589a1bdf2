"""Data sets of the hub as problems, programs and pairs: one module a schema, read by `datasets` without a copy.

`path` is a hub name, or a local file (`.jsonl`, `.json`, `.parquet`, gzipped or not) of the same schema. Nothing is
trusted that can be run: a shipped pass rate is kept only if the recipe says so, otherwise `verify` makes a new one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks, UsageError
from training.pipeline import config
from training.pipeline.records import Problem, Program, data_file
from training.pipeline.run import read_jsonl

ADAPTERS = {
    "acecode-87k": "acecode",
    "acecodepair-300k": "acecode_pair",
    "humaneval": "humaneval",
    "humaneval+": "humaneval",
    "mbpp": "mbpp",
    "mbpp+": "mbpp_plus",
    "multipl-e": "multipl_e",
    "livecodebench": "livecodebench",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A problem with what the data set has of programs; `pairs`: (chosen, rejected) by program_id."""

    problem: Problem
    programs: tuple[Program, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()


def entries(hub: config.Hub) -> Iterator[Entry]:
    """Every row of the data set that the recipe names, in its order. Raises `UsageError` for an unknown adapter."""
    if hub.adapter not in ADAPTERS:
        raise UsageError(f"hub.adapter must be one of {', '.join(ADAPTERS)}, not {hub.adapter!r}")
    module = importlib.import_module(f"training.data.adapters.{ADAPTERS[hub.adapter]}")
    found: Iterator[Entry] = module.entries(rows(hub), hub)
    return found


def rows(hub: config.Hub) -> Iterable[dict[str, Any]]:
    """The raw rows, streamed."""
    import datasets

    path = Path(hub.path)
    if path.is_file():
        kind = "parquet" if path.suffix == ".parquet" else "json"
        found: Iterable[dict[str, Any]] = datasets.load_dataset(
            kind, data_files=str(path), split="train", streaming=True
        )
        return found
    try:
        found = datasets.load_dataset(hub.path, hub.name or None, split=hub.split, streaming=True)
    except (OSError, ValueError) as error:
        raise HostLacks(f"hub.path: {hub.path} is no file and cannot be had from the hub: {error}") from error
    return found


def evaluation_texts(entry: str) -> Iterator[tuple[str, list[str]]]:
    """(task_id, texts) of an evaluation set: `adapter=path`, or a problem file of the public data's form."""
    adapter, equals, path = entry.partition("=")
    if equals:
        for one in entries(config.Hub(adapter=adapter, path=path, split="test")):
            problem = one.problem
            yield problem.task_id, [text for text in (problem.prompt, problem.canonical) if text]
        return
    for row in read_jsonl(data_file(str(Path(entry).parent), Path(entry).name)):
        texts = (row.get(name) for name in ("prompt", "text", "question", "canonical_solution", "canonical"))
        yield str(row["task_id"]), [text for text in texts if text]
