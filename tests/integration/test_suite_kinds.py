"""Over HTTP: kinds pytest and unittest, what is refused at the door, vacuous and unjudgeable tests, labels."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

ADD = "def add(a, b):\n    return a + b\n"
SUB = "def add(a, b):\n    return a - b\n"
PYTEST = (
    "from solution import add\n\ndef test_sum():\n    assert add(1, 2) == 3\n\n"
    "def test_zero():\n    assert add(0, 0) == 0\n"
)
UNITTEST = (
    "import unittest\n\nclass TestAdd(unittest.TestCase):\n    def test_sum(self):\n"
    "        self.assertEqual(add(1, 2), 3)\n"
    "    def test_zero(self):\n        self.assertEqual(add(0, 0), 0)\n"
)


def execute(http: httpx.Client, tests: dict[str, Any], **item: Any) -> list[dict[str, Any]]:
    one = {"language": "python", "programs": [ADD, SUB], "tests": tests} | item
    answer = http.post("/execute", json={"items": [one]})
    assert answer.status_code == 200, answer.text
    programs: list[dict[str, Any]] = answer.json()["results"][0]["programs"]
    return programs


@pytest.mark.parametrize(
    ("kind", "source", "name"), [("pytest", PYTEST, "test_sum"), ("unittest", UNITTEST, "TestAdd.test_sum")]
)
def test_a_test_file_has_a_verdict_a_test_with_its_name(http: httpx.Client, kind: str, source: str, name: str) -> None:
    for tests in ({"kind": kind, "source": source}, {"kind": "script", "source": source}):
        right, wrong = execute(http, tests)
        assert (right["verdict"], right["passed"], right["total"], right["judge"]) == ("passed", 2, 2, "split")
        assert (wrong["verdict"], wrong["pass_rate"], wrong["trainable"]) == ("wrong_answer", 0.5, True)
        assert (wrong["tests"][0]["name"], wrong["tests"][0]["verdict"]) == (name, "wrong_answer")


def test_files_lie_beside_a_test_file(http: httpx.Client) -> None:
    source = (
        "from cases import CASES\n\ndef test_all(shift):\n    for a, b in CASES:\n        assert add(a, shift) == b\n"
    )
    files = {
        "cases.py": b"CASES = [(1, 2), (2, 3)]\n",
        "conftest.py": b"import pytest\n@pytest.fixture\ndef shift():\n    return 1\n",
    }
    encoded = {name: base64.b64encode(text).decode() for name, text in files.items()}
    right, wrong = execute(http, {"kind": "pytest", "source": source, "files": encoded})
    assert (right["verdict"], wrong["verdict"]) == ("passed", "wrong_answer"), right["error"]


@pytest.mark.parametrize(
    ("tests", "field", "hint"),
    [
        ({"kind": "assert", "asserts": ["assert add(1, 2) == 3", "add(1, 2) == 3"]}, "asserts.1", "write `assert"),
        ({"kind": "assert", "asserts": ["print(add(1, 2))"]}, "asserts.0", "a print"),
        ({"kind": "assert", "asserts": ["assert (add(1, 2) == 3, 1)"]}, "asserts.0", "a tuple"),
        (
            {"kind": "check", "test": "def check(candidate):\n    candidate(1, 2) == 3\n", "entry_point": "add"},
            "test",
            "check()",
        ),
        ({"kind": "script", "source": "# nothing\n"}, "source", "comments"),
        ({"kind": "pytest", "source": "x = 1\n"}, "source", "no test"),
    ],
)
def test_tests_that_assert_nothing_are_422_and_named(
    http: httpx.Client, tests: dict[str, Any], field: str, hint: str
) -> None:
    bodies = {
        "/execute": {"items": [{"language": "python", "programs": [ADD], "tests": tests}]},
        "/reward": {"items": [{"prompt": "p", "completions": [ADD], "tests": tests}]},
        "/rank": {"items": [{"prompt": "p", "completions": [ADD], "tests": tests}]},
    }
    for path, body in bodies.items():
        answer = http.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_tests"), answer.text
        assert answer.json()["detail"].startswith(f"items.0.tests.{field}: ")
        assert hint in answer.json()["detail"]


def test_a_suite_that_any_program_passes_is_invalid_for_all(http: httpx.Client) -> None:
    idle = {"kind": "pytest", "source": "def test_idle():\n    add(1, 2)\n"}
    for one in execute(http, idle):
        assert (one["status"], one["trainable"], one["error"]["code"]) == ("invalid", False, "invalid_tests")
    for one in execute(http, idle, options={"control": False}):
        assert (one["status"], one["verdict"]) == ("ok", "passed")
    mixed = {"kind": "pytest", "source": f"{PYTEST}\ndef test_idle():\n    add(1, 2)\n"}
    right, _ = execute(http, mixed)
    assert [test["vacuous"] for test in right["tests"]] == [False, False, True]


def test_an_unjudgeable_test_is_not_counted_and_auto_judges_it(http: httpx.Client) -> None:
    poke = "def test_globals():\n    assert callable(solution.add.__globals__['add'])\n"
    tests = {"kind": "pytest", "source": f"import solution\n{PYTEST}\n{poke}"}
    right, wrong = execute(http, tests)
    assert [test["verdict"] for test in right["tests"]] == ["passed", "passed", "unjudgeable"]
    assert (right["passed"], right["total"], wrong["passed"], wrong["total"]) == (2, 2, 1, 2)
    right, _ = execute(http, tests, options={"grading": "auto"})
    assert (right["passed"], right["total"], right["judge"]) == (3, 3, "shared_process")


def test_labels_that_are_test_files_are_run(http: httpx.Client) -> None:
    for label in (PYTEST, UNITTEST, {"test": PYTEST}, {"test": UNITTEST, "entry_point": "add"}):
        answers = [
            http.post("/slime", json={"prompt": "p", "response": f"```python\n{one}```", "label": label})
            for one in (ADD, SUB)
        ]
        assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
        assert [answer.json() for answer in answers] == [1.0, 0.5]
    idle = http.post("/slime", json={"prompt": "p", "response": "```python\n{SUB}```", "label": '["add(1,2) == 3"]'})
    assert (idle.status_code, idle.json()["code"]) == (422, "invalid_tests")
