"""MultiPL-E: `name, language, prompt, tests, stop_tokens`; the tests follow the program in one text, exit code 0.

A prompt opens what its tests close (a class, in some languages), so candidates are continuations: `sampler.chat =
false`, with `sampler.stop` from the rows' `stop_tokens`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from plaudit.languages import UnsupportedLanguage, resolve
from training.data.adapters.base import DatasetEntry
from training.pipeline import config
from training.pipeline.records import Problem


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        name, language = str(row["name"]), str(row["language"])
        family = re.match(r"(HumanEval|mbpp)_(\d+)", name)
        base = f"{family[1].replace('mbpp', 'MBPP')}/{family[2]}" if family else name
        with contextlib.suppress(UnsupportedLanguage):  # `verify` says so, problem by problem
            language = resolve(language)
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
            )
        )
