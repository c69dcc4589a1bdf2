"""MultiPL-E: `name, language, prompt, tests, stop_tokens`; the tests follow the program in one text, exit code 0.

- A prompt opens what its tests close (a class, in some languages), so candidates are continuations: `sampler.chat =
  false`. A completion ends before the first of its row's `stop_tokens`, which differ from language to language.
- `hub.languages` takes several configurations in one run: of the hub, or the files `NAME-CODE.jsonl` (`.json`,
  `.parquet`) of a local folder, as `humaneval-cpp.jsonl`; `all` takes each that plaudit can run, and of a folder those
  that are there.
- A problem in a language that plaudit does not have is unusable.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks, UsageError
from plaudit.languages import UnsupportedLanguage, resolve
from training.data.adapters.base import DatasetEntry
from training.pipeline import config
from training.pipeline.records import Problem

# Our language -> how MultiPL-E calls it in the names of its configurations.
CODES = {
    "cpp": "cpp",
    "csharp": "cs",
    "go_test": "go",
    "java": "java",
    "javascript": "js",
    "lua": "lua",
    "perl": "pl",
    "php": "php",
    "python": "py",
    "r": "r",
    "racket": "rkt",
    "ruby": "rb",
    "rust": "rs",
    "bash": "sh",
    "typescript": "ts",
}
LANGUAGES = {"go_test.go": "go_test", "go": "go_test"}  # a row's own word, where it is not a spelling of ours
FAMILIES = ("humaneval", "mbpp")
ENDINGS = (".jsonl", ".json", ".parquet", ".jsonl.gz")


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        name, language, unusable = str(row["name"]), str(row["language"]), ""
        family = re.match(r"(HumanEval|mbpp)_(\d+)", name)
        base = f"{family[1].replace('mbpp', 'MBPP')}/{family[2]}" if family else name
        try:
            language = resolve(LANGUAGES.get(language, language))
        except UnsupportedLanguage as error:
            unusable = f"language: {error}"
        called = re.match(r"(?:HumanEval|mbpp)_\d+_(\w+)", name)
        function = called[1] if called else ""
        yield DatasetEntry(
            Problem(
                task_id=f"{name}/{language}",
                base_id=base,
                prompt=row["prompt"],
                entry_point=function,
                canonical=None,
                test_setup="",
                tests=("\n" + row["tests"],),
                source="MultiPL-E",
                license="MIT",
                language=language,
                kind="script",
                stop=tuple(row.get("stop_tokens") or ()),
            ),
            unusable=unusable,
        )


def configurations(hub: config.HubConfig) -> Iterator[config.HubConfig]:
    """`hub` for each of its languages alone.

    Raises `UsageError` for a language that MultiPL-E or plaudit does not have, `HostLacks` for a file that is missing.
    """
    if hub.name not in FAMILIES:
        raise UsageError(f"hub.name: with hub.languages it is one of {', '.join(FAMILIES)}, not {hub.name!r}")
    every = "all" in hub.languages
    names = [f"{hub.name}-{code}" for code in (CODES.values() if every else map(_code, hub.languages))]
    if not Path(hub.path).is_dir():
        yield from (dataclasses.replace(hub, name=name, languages=()) for name in names)
        return
    files = {name: _local(hub.path, name) for name in names}
    missing = [name for name, path in files.items() if not path]
    if missing and (not every or len(missing) == len(names)):
        raise HostLacks(f"hub.languages: no file {missing[0]}.jsonl in {hub.path}")
    yield from (dataclasses.replace(hub, path=path, name="", languages=()) for path in files.values() if path)


def _local(folder: str, name: str) -> str:
    paths = (Path(folder) / f"{name}{ending}" for ending in ENDINGS)
    return next((str(path) for path in paths if path.is_file()), "")


def _code(language: str) -> str:
    if language in CODES.values():
        return language
    try:
        name = resolve(LANGUAGES.get(language, language))
    except UnsupportedLanguage as error:
        raise UsageError(f"hub.languages: {error}") from None
    if name not in CODES:
        raise UsageError(f"hub.languages: MultiPL-E has no {language}; it has {', '.join(CODES)}")
    return CODES[name]
