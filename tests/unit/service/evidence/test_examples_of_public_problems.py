"""The reader on HumanEval's own prompts: how many it reads, and whether the reference agrees with what it read."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.evidence.examples import as_assert, read_examples

ROOT = Path(__file__).resolve().parents[4]
PROBLEMS = Path(os.environ.get("PLAUDIT_DATA", ROOT.parent / "shared" / "data")) / "problems.python.jsonl.gz"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not PROBLEMS.is_file(), reason="the public data is not here (PLAUDIT_DATA)"),
]

CHECK = """
try:
    {test}
except BaseException as error:
    print({task!r}, {test!r}, type(error).__name__)
"""


def test_references_agree_with_humaneval_examples() -> None:
    with gzip.open(PROBLEMS, "rt", encoding="utf-8") as lines:
        problems = [row for row in map(json.loads, lines) if row["task_id"].startswith("HumanEval/")]
    num_examples = num_with = 0
    wrong: list[str] = []
    for problem in problems:
        reading = read_examples(problem["prompt"])
        assert reading.entry_point == problem["entry_point"]
        tests = [as_assert(example, problem["entry_point"]) for example in reading.examples]
        num_examples, num_with = num_examples + len(tests), num_with + bool(tests)
        checks = "".join(CHECK.format(test=test, task=problem["task_id"]) for test in tests)
        run = subprocess.run(
            [sys.executable, "-c", problem["canonical_solution"] + checks], capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        wrong += run.stdout.splitlines()
    assert len(wrong) <= 0.02 * num_examples, wrong
    assert num_with >= 0.93 * len(problems)
