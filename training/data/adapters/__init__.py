"""Data sets of the hub as problems, programs and pairs: a module per schema or kind of schema, streamed by `datasets`.

`path` is a hub name, or a local file (`.jsonl`, `.json`, `.parquet`, gzipped or not) of the same schema. A shipped pass
rate is used only if the recipe says so; otherwise `verify` runs the tests.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks, UsageError
from training.data.adapters import multipl_e
from training.data.adapters.base import DatasetEntry
from training.data.public_data import data_file
from training.pipeline import config
from training.pipeline.files import read_jsonl

ADAPTERS = {
    "acecode-87k": "acecode",
    "acecodepair-300k": "acecode_pair",
    "humaneval": "humaneval",
    "humaneval+": "humaneval",
    "mbpp": "mbpp",
    "mbpp+": "mbpp_plus",
    "multipl-e": "multipl_e",
    "livecodebench": "livecodebench",
    **dict.fromkeys(("apps", "taco", "codecontests", "codeforces", "deepcoder", "prime", "synthetic-1"), "contests"),
    "evocodebench": "evocodebench",
    **dict.fromkeys(("bigcodebench", "bigcodebench-instruct", "kodcode", "leetcode", "classeval"), "functions"),
}


def entries(hub: config.HubConfig) -> Iterator[DatasetEntry]:
    """Every row of the data set that the recipe names, in its order. Raises `UsageError` for an unknown adapter."""
    if hub.adapter not in ADAPTERS:
        raise UsageError(f"hub.adapter must be one of {', '.join(ADAPTERS)}, not {hub.adapter!r}")
    module = importlib.import_module(f"training.data.adapters.{ADAPTERS[hub.adapter]}")
    dataset_entries: Iterator[DatasetEntry] = module.entries(rows(hub), hub)
    return dataset_entries


def rows(hub: config.HubConfig) -> Iterable[dict[str, Any]]:
    """The raw rows, streamed. Raises `HostLacks` for a data set that cannot be loaded."""
    if hub.languages and hub.adapter != "multipl-e":
        raise UsageError(f"hub.languages: only the adapter multipl-e has languages, and hub.adapter is {hub.adapter!r}")
    if hub.languages:
        return itertools.chain.from_iterable(map(_rows, multipl_e.configurations(hub)))
    return _rows(hub)


def _rows(hub: config.HubConfig) -> Iterable[dict[str, Any]]:
    import datasets

    path, files = Path(hub.path), _files(hub)
    if path.is_file():
        kind = "parquet" if path.suffix == ".parquet" else "json"
        dataset: Iterable[dict[str, Any]] = datasets.load_dataset(
            kind, data_files=str(path), split="train", streaming=True
        )
        return dataset
    try:
        if files:
            folder = path if path.is_dir() else f"hf://datasets/{hub.path}"
            named = [f"{folder}/{name}" for name in files]
            kind = "parquet" if all(name.endswith(".parquet") for name in files) else "json"
            dataset = datasets.load_dataset(kind, data_files=named, split="train", streaming=True)
        else:
            dataset = datasets.load_dataset(hub.path, hub.name or None, split=hub.split, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise HostLacks(f"hub.path: {hub.path} is not a local file, and the hub does not give it: {error}") from error
    return dataset


def _files(hub: config.HubConfig) -> tuple[str, ...]:
    """The files to read: those that are named, or those of LiveCodeBench's release. Raises `UsageError`."""
    if not hub.version:
        return hub.files
    number = re.fullmatch(r"release_v([1-9])", hub.version)
    if hub.adapter != "livecodebench" or hub.files or number is None:
        raise UsageError(
            f"hub.version: {hub.version!r} is for the adapter livecodebench, release_v1, release_v2 and so on, and not "
            "beside hub.files"
        )
    return ("test.jsonl", *(f"test{at}.jsonl" for at in range(2, int(number[1]) + 1)))


def evaluation_texts(entry: str) -> Iterator[tuple[str, list[str]]]:
    """(task_id, texts) of an evaluation set: `adapter=path`, or a problem file of the public data's form."""
    adapter, equals, path = entry.partition("=")
    if equals:
        for dataset_entry in entries(config.HubConfig(adapter=adapter, path=path, split="test")):
            problem = dataset_entry.problem
            yield problem.task_id, [text for text in (problem.prompt, problem.canonical) if text]
        return
    for row in read_jsonl(data_file(str(Path(entry).parent), Path(entry).name)):
        texts = (row.get(name) for name in ("prompt", "text", "question", "canonical_solution", "canonical"))
        yield str(row["task_id"]), [text for text in texts if text]
