"""LiveCodeBench: `question_id, question_title, question_content, starter_code, public_test_cases, private_test_cases,
metadata`. Test cases are JSON lists of `{input, output, testtype}`; the private ones may come as base64 of a zlib
stream of a pickled string, which is read by an unpickler that knows no classes.

`stdin` cases become stdio tests. `functional` cases call a method of `Solution` (one JSON argument per line) and become
asserts, so a problem has tests of one kind.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from plaudit.errors import Invalid
from training.data.adapters.base import DatasetEntry
from training.pipeline import config
from training.pipeline.records import Problem


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        cases = [*cases_of(row["public_test_cases"]), *cases_of(row["private_test_cases"])]
        name = json.loads(row.get("metadata") or "{}").get("func_name")
        starter = row.get("starter_code") or ""
        functional = any(case["testtype"] == "functional" for case in cases)
        tests = tuple(
            assert_of(name, case) if functional else json.dumps({"stdin": case["input"], "stdout": case["output"]})
            for case in cases
        )
        prompt = row["question_content"] + (f"\n\nBegin with this code:\n\n{starter}\n" if starter.strip() else "")
        task_id = f"LiveCodeBench/{row['question_id']}"
        yield DatasetEntry(
            Problem(
                task_id=task_id,
                base_id=task_id,
                prompt=prompt,
                entry_point="Solution" if functional else "",
                canonical=None,
                test_setup="",
                tests=tests,
                source="LiveCodeBench",
                license="see the data set's card",
                kind="assert" if functional else "stdio",
            )
        )


def assert_of(name: str, case: dict[str, str]) -> str:
    """A functional case as an assert on a fresh `Solution`."""
    arguments = ", ".join(repr(json.loads(line)) for line in case["input"].splitlines() if line.strip())
    return f"assert Solution().{name}({arguments}) == {json.loads(case['output'])!r}"


def cases_of(text: str) -> list[dict[str, str]]:
    """The test cases of a field, packed or not. Raises `Invalid` for anything else."""
    try:
        cases = json.loads(text)
    except ValueError:
        try:
            unpacked = _Plain(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
            cases = json.loads(unpacked)
        except (ValueError, TypeError, zlib.error, pickle.UnpicklingError, EOFError) as error:
            raise Invalid(f"LiveCodeBench test cases are neither JSON nor packed JSON: {text[:60]!r}") from error
    return [dict(case) for case in cases]


class _Plain(pickle.Unpickler):
    """Builtin values only: a pickle that names a class or function is rejected."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in a file of test cases")
