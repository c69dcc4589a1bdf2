"""Functions of repositories become problems under their repository's tests, or are named with the reason why not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import HostLacks
from sandbox.capabilities import HostCapabilities
from training.data.adapters import entries
from training.data.adapters.base import DatasetEntry
from training.data.judge_local import judge_locally
from training.data.judge_task import task_of
from training.data.judging import judge_all
from training.data.programs import program_of
from training.pipeline.config import HubConfig
from training.pipeline.files import write_jsonl
from training.pipeline.run import Run

MODULE = """from __future__ import annotations

import re

WORD = re.compile(r"[a-z]+")


def words(text: str) -> list[str]:
    return WORD.findall(lowered(text))


def count(text: str, word: str) -> int:
    \"\"\"As it was.\"\"\"
    return words(text).count(word)


def lowered(text: str) -> str:
    return text.lower()


class Counter:
    def add(self, n):
        return n
"""
TESTS = """import pytest

from texts.core.counting import count


@pytest.fixture
def text():
    return "A b a"


def test_count(text):
    assert count(text, "a") == 2


@pytest.mark.parametrize("word", ["b", "c"])
def test_other(word, text):
    assert count(text, word) == int(word == "b")


def test_of_something_else():
    assert False
"""
UNITTESTS = """import unittest
from texts.core import counting


class CountingTest(unittest.TestCase):
    def setUp(self):
        self.text = "A b a"

    def test_count(self):
        self.assertEqual(counting.count(self.text, "a"), 2)

    def test_else(self):
        self.fail()
"""
ROW: dict[str, Any] = {
    "namespace": "texts.core.counting.count",
    "type": "function",
    "project_path": "Text/texts",
    "completion_path": "Text/texts/texts/core/counting.py",
    "signature_position": [12, 12],
    "body_position": [13, 14],
    "requirement": {
        "Functionality": "Count how often a word is in a text.",
        "Arguments": ":param text: str. The text.\n:param word: str. In lower case.\n:return: int.",
    },
    "dependency": {"intra_class": [], "intra_file": ["texts.core.counting.words"], "cross_file": []},
    "tests": ["tests/test_counting.py::test_count", "tests/test_counting.py::test_other[b]"],
    "indent": 4,
}


def read(folder: Path, *rows: dict[str, Any]) -> list[DatasetEntry]:
    project = folder / "Source_Code" / "Text" / "texts"
    for name, text in (
        ("texts/core/counting.py", MODULE),
        ("tests/test_counting.py", TESTS),
        ("tests/test_cases.py", UNITTESTS),
        ("tests/test_more.py", TESTS.replace("import count", "import count, words")),
        ("tests/test_others.py", TESTS.replace("import pytest", "import pytest\nfrom texts.io import load")),
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    write_jsonl(folder / "data.jsonl", rows)
    hub = HubConfig(adapter="evocodebench", path=str(folder / "data.jsonl"), sources=str(folder / "Source_Code"))
    return list(entries(hub))


def test_the_prompt_is_the_head_with_its_requirement(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, ROW)
    assert not entry.unusable
    assert entry.problem.prompt == (
        'def count(text: str, word: str) -> int:\n    """\n    Count how often a word is in a text.\n\n'
        '    :param text: str. The text.\n    :param word: str. In lower case.\n    :return: int.\n    """\n'
    )
    suite = json.loads(entry.problem.tests[0])
    assert suite["kind"] == "pytest"
    assert "from solution import count" in suite["source"]
    assert "test_of_something_else" not in suite["source"]
    assert "def count" not in suite["prelude"]
    assert "def lowered" in suite["prelude"]


@pytest.mark.skipif(HostCapabilities.probe().level != "strong", reason="programs cannot run here")
@pytest.mark.parametrize(
    "tests", [ROW["tests"], ["tests/test_cases.py::CountingTest::test_count"]], ids=["pytest", "unittest"]
)
def test_functions_are_judged_behind_the_rest_of_their_file(tmp_path: Path, tests: list[str]) -> None:
    (entry,) = read(tmp_path, {**ROW, "tests": tests})
    problem = entry.problem
    right = [problem.canonical or "", problem.prompt + "    return words(text).count(word)\n"]
    wrong = [problem.prompt + "    return text.count(word)\n", problem.prompt + "    return missing(text)\n", "x = 1\n"]
    tasks = [task_of(problem, program_of(problem, text, "sample", "", ""), 5.0) for text in (*right, *wrong)]
    results = judge_all(tasks, Run(tmp_path / "run", quiet=True), partial(judge_locally, processes=1))
    rates = [results[task.key]["pass_rate"] for task in tasks]
    assert rates[:2] == [1.0, 1.0], results[tasks[0].key]
    assert max(rates[2:]) < 1.0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"type": "method"}, "type: a method"),
        ({"dependency": {"cross_file": ["texts.io.load"]}}, "needs texts.io.load of another file"),
        ({"signature_position": [11, 11]}, "has no function count at line 11"),
        ({"completion_path": "Text/texts/none.py"}, "completion_path: none.py cannot be read"),
        ({"tests": ["tests/a.py::test_a", "tests/b.py::test_b"]}, "are not tests of one file"),
        ({"tests": ["tests/test_counting.py::test_none"]}, "has no test test_none"),
        ({"tests": ["tests/test_more.py::test_count"]}, "imports words beside the function"),
        ({"tests": ["tests/test_others.py::test_count"]}, "line 2 imports texts.io.load of the repository"),
    ],
)
def test_what_cannot_be_judged_is_named_with_the_reason(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    (entry,) = read(tmp_path, {**ROW, **changed})
    assert reason in entry.unusable


def test_the_repositories_must_be_there(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [ROW])
    with pytest.raises(HostLacks, match=r"hub\.sources"):
        list(entries(HubConfig(adapter="evocodebench", path=str(tmp_path / "data.jsonl"))))
