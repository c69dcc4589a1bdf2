"""LiveCodeBench: `question_id, question_title, question_content, starter_code, public_test_cases, private_test_cases,
metadata`. Test cases are JSON lists of `{input, output, testtype}`; the private ones may come as base64 of a zlib
stream of a pickled string, which is read by an unpickler that knows no classes.

A problem is judged as LiveCodeBench's own harness judges it: imports stand before the program, `functional` cases call
a method of `Solution` (one JSON argument per line), and printed lines are compared without surrounding blanks, numbers
by value.
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
from training.data.adapters.base import DatasetEntry, labelled_entry, question
from training.pipeline import config


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        cases = [*cases_of(row["public_test_cases"]), *cases_of(row["private_test_cases"])]
        name = json.loads(row.get("metadata") or "{}").get("func_name")
        functional = any(case["testtype"] == "functional" for case in cases)
        label = {
            "inputs": [case["input"] for case in cases],
            "outputs": [case["output"] for case in cases],
            "fn_name": name if functional else None,
        }
        yield labelled_entry(
            f"LiveCodeBench/{row['question_id']}",
            question(row["question_content"], row.get("starter_code")),
            label,
            "public_test_cases, private_test_cases",
            source="LiveCodeBench",
            license_="see the data set's card",
            entry_point="Solution" if functional else "",
        )


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
