"""Contest problems with inputs and outputs: APPS, TACO, CodeContests, Codeforces (open-r1), DeepCoder-Preview, PRIME
(Eurus-2-RL-Data) and SYNTHETIC-1. Their pairs are graded as the graders of these sets do (`plaudit.graders`).

| adapter | fields of a row that are read |
|---|---|
| apps | problem_id, question, starter_code, input_output and solutions (JSON) |
| taco | question, name, starter_code, input_output and solutions (JSON) |
| codecontests | name, description, public_tests, private_tests, generated_tests, solutions, incorrect_solutions |
| codeforces | id, title, description, input_format, output_format, note, examples, official_tests, generated_checker |
| deepcoder | problem, starter_code, tests (JSON, in the forms of its four configurations), solutions |
| prime | data_source, ability, prompt (messages), reward_model.ground_truth (JSON) |
| synthetic-1 | problem_id, prompt, verification_info (JSON or an object), gold_standard_solution |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plaudit.extract import last_fence
from plaudit.schemas import HelperProgram, StdioTestCase, StdioTests
from training.data.adapters.base import DatasetEntry, as_json, labelled_entry, question
from training.pipeline import config
from training.pipeline.digests import content_key

PYTHON_3 = 3  # of CodeContests' languages, which are numbers: 1 Python 2, 2 C++, 3 Python 3, 4 Java
ARGUMENTS = "import sys\nsys.argv[2], sys.argv[3] = sys.argv[3], sys.argv[2]  # this checker takes the answer first\n"


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    read = READERS[hub.adapter]
    for row in rows:
        entry = read(row)
        if entry is not None:
            yield entry


def _apps(row: Mapping[str, Any]) -> DatasetEntry:
    return labelled_entry(
        f"APPS/{row['problem_id']}",
        question(row["question"], row.get("starter_code")),
        row["input_output"],
        "input_output",
        source="APPS",
        license_="MIT",
        right=_list(row.get("solutions")),
    )


def _taco(row: Mapping[str, Any]) -> DatasetEntry:
    name = row.get("name") or content_key(row["question"])
    return labelled_entry(
        f"TACO/{name}",
        question(row["question"], row.get("starter_code")),
        row["input_output"],
        "input_output",
        source="TACO",
        license_="Apache-2.0",
        right=_list(row.get("solutions")),
    )


def _codecontests(row: Mapping[str, Any]) -> DatasetEntry:
    given = [row.get(name) or {} for name in ("public_tests", "private_tests", "generated_tests")]
    label = {side + "s": [text for tests in given for text in tests.get(side, ())] for side in ("input", "output")}
    return labelled_entry(
        f"CodeContests/{row['name']}",
        row["description"],
        label,
        "public_tests, private_tests, generated_tests",
        source="CodeContests",
        license_="CC-BY-4.0",
        right=_python(row.get("solutions")),
        wrong=_python(row.get("incorrect_solutions")),
    )


def _codeforces(row: Mapping[str, Any]) -> DatasetEntry | None:
    if row.get("interaction_format") or row.get("input_mode") not in (None, "stdio"):
        return None  # needs an interactor, or files, of which the data set has none
    parts = [
        row.get("title"),
        row["description"],
        *_headed("Input", row.get("input_format")),
        *_headed("Output", row.get("output_format")),
        *(f"Example\n\nInput\n{case['input']}\nOutput\n{case['output']}" for case in row.get("examples") or ()),
        *_headed("Note", row.get("note")),
    ]
    cases = row.get("official_tests") or row.get("examples") or []
    label: Any = [{"input": case["input"], "output": case["output"]} for case in cases]
    field = "official_tests"
    if row.get("generated_checker") and cases:
        tests = [StdioTestCase(stdin=case["input"], stdout=case["output"]) for case in cases]
        checker = HelperProgram(language="python", source=_with_arguments(row["generated_checker"]))
        label, field = as_json(StdioTests(kind="stdio", cases=tests, checker=checker)), "generated_checker"
    return labelled_entry(
        f"Codeforces/{row['id']}",
        "\n\n".join(part for part in parts if part),
        label,
        field,
        source="open-r1/codeforces",
        license_="CC-BY-4.0",
    )


def _deepcoder(row: Mapping[str, Any]) -> DatasetEntry:
    tests = json.loads(row["tests"]) if isinstance(row["tests"], str) else row["tests"]
    metadata = row.get("metadata") or {}
    name = (json.loads(metadata) if isinstance(metadata, str) else metadata).get("func_name")
    return labelled_entry(
        f"DeepCoder/{content_key(row['problem'])}",
        question(row["problem"], row.get("starter_code")),
        _pairs(tests, name),
        "tests",
        source="DeepCoder-Preview",
        license_="MIT",
        right=[last_fence(text) or text for text in _list(row.get("solutions"))],
    )


def _prime(row: Mapping[str, Any]) -> DatasetEntry | None:
    if row.get("ability", "code") != "code":
        return None
    asked = "\n\n".join(message["content"] for message in row["prompt"] if message["role"] == "user")
    return labelled_entry(
        f"PRIME/{content_key(asked)}",
        asked,
        row["reward_model"]["ground_truth"],
        "reward_model.ground_truth",
        source=f"Eurus-2-RL-Data/{row.get('data_source', 'code')}",
        license_="MIT",
    )


def _synthetic_1(row: Mapping[str, Any]) -> DatasetEntry | None:
    if row.get("task_type", "verifiable_code") != "verifiable_code":
        return None
    info = row["verification_info"]
    info = json.loads(info) if isinstance(info, str) else info
    reference = row.get("gold_standard_solution")
    return labelled_entry(
        f"SYNTHETIC-1/{row['problem_id']}",
        row["prompt"],
        _pairs(info["test_cases"], None),
        "verification_info",
        source="SYNTHETIC-1",
        license_="Apache-2.0",
        right=[last_fence(reference) or reference] if reference else [],
        language=str(info.get("language") or "python"),
    )


READERS = {
    "apps": _apps,
    "taco": _taco,
    "codecontests": _codecontests,
    "codeforces": _codeforces,
    "deepcoder": _deepcoder,
    "prime": _prime,
    "synthetic-1": _synthetic_1,
}


def _pairs(tests: Any, name: str | None) -> Any:
    """A list of `{input, output, type or testtype, fn_name or metadata.func_name}` as a label of inputs and outputs."""
    if not isinstance(tests, list):
        return tests  # inputs and outputs already
    for case in tests:
        name = name or case.get("fn_name") or (case.get("metadata") or {}).get("func_name")
    calls = any(str(case.get("type") or case.get("testtype")) in ("function_call", "functional") for case in tests)
    return {
        "inputs": [case["input"] for case in tests],
        "outputs": [case["output"] for case in tests],
        "fn_name": name if calls else None,
    }


def _with_arguments(checker: str) -> str:
    """The checker behind the lines that swap its arguments, which must stand after its imports from `__future__`."""
    future = [line for line in checker.splitlines(keepends=True) if line.startswith("from __future__ ")]
    rest = "".join(line for line in checker.splitlines(keepends=True) if not line.startswith("from __future__ "))
    return "".join(future) + ARGUMENTS + rest


def _python(solutions: Any) -> list[str]:
    """CodeContests' Python 3 programs: two lists of one length, or a list of objects."""
    if isinstance(solutions, Mapping):
        pairs = list(zip(solutions.get("language", ()), solutions.get("solution", ()), strict=True))
    else:
        pairs = [(entry["language"], entry["solution"]) for entry in solutions or ()]
    return [text for language, text in pairs if language in (PYTHON_3, "PYTHON3")]


def _list(value: Any) -> list[str]:
    """A list of programs, or JSON of one; empty where there is none."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    return [str(text) for text in value or ()]


def _headed(head: str, text: str | None) -> list[str]:
    return [f"{head}\n\n{text}"] if text else []
