"""What `/execute` tells beyond a verdict, asked over HTTP: its options, and that they make it another piece of work."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

ADD = "def add(a, b):\n    return a + b\n"
ASSERT = {"kind": "assert", "asserts": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}


def execute(http: httpx.Client, tests: Any, *programs: str, **item: Any) -> list[Any]:
    body = {"items": [{"language": "python", "programs": list(programs), "tests": tests, **item}]}
    response = http.post("/execute", json=body)
    assert response.status_code == 200, response.text
    runs: list[Any] = response.json()["results"][0]["programs"]
    return runs


def unique(program: str) -> str:
    return f"{program}# {uuid.uuid4().hex}\n"


def test_options_are_part_of_a_results_identity(http: httpx.Client) -> None:
    program = unique(ADD)
    ways: list[dict[str, bool]] = [
        {},
        {"fresh_interpreter": True},
        {"grading": "together"},
        {"check_determinism": True},
        {"audit": True},
    ]
    first = [execute(http, ASSERT, program, options=options)[0] for options in ways]
    again = [execute(http, ASSERT, program, options=options)[0] for options in ways]
    none = execute(http, ASSERT, program)[0]

    assert [(one["verdict"], one["flags"], one["cached"]) for one in first] == [("passed", [], False)] * len(ways)
    assert [one["cached"] for one in again] == [True] * len(ways)
    assert none["cached"] is True  # nothing asked for is the same as all of it off
    assert [one["judge"] for one in first] == ["split", "split", "shared_process", "split", "split"]


@pytest.mark.parametrize("options", [{"fresh": True}, {"audit": "yes please"}, [], None])
def test_an_unknown_option_is_an_error_with_its_path(http: httpx.Client, options: Any) -> None:
    item = {"language": "python", "programs": [ADD], "tests": ASSERT, "options": options}
    response = http.post("/execute", json={"items": [item]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"].startswith("items.0.options")


def test_an_option_that_cannot_be_is_invalid_by_its_name(http: httpx.Client) -> None:
    stdio = {"kind": "stdio", "cases": [{"stdin": "", "stdout": "1"}]}
    (one,) = execute(http, stdio, unique("print(1)\n"), options={"grading": "together"})
    assert (one["status"], one["trainable"], one["verdict"]) == ("invalid", False, None)
    assert one["error"]["code"] == "invalid_options"
    assert one["error"]["detail"].startswith("options.grading: ")
    (one,) = execute(http, stdio, "int main() {}", language="cpp", options={"audit": True})
    assert (one["status"], one["error"]["code"]) == ("invalid", "invalid_options")


def test_what_differs_from_run_to_run_is_flagged_and_never_recalled(http: httpx.Client) -> None:
    tests = {"kind": "stdio", "cases": [{"stdin": "", "stdout": "1"}]}
    program = unique("import random\nprint(random.random())\n")
    for _ in range(2):
        (one,) = execute(http, tests, program, options={"check_determinism": True})
        assert (one["flags"], one["cached"], one["verdict"]) == (["nondeterministic"], False, "wrong_answer")


def test_an_audit_flags_what_it_saw_and_leaves_the_verdict_alone(http: httpx.Client) -> None:
    cheat = unique("class Y:\n    def __eq__(self, other): return True\ndef add(a, b): return Y()\n")
    watched, honest = execute(http, ASSERT, cheat, unique(ADD), options={"audit": True})
    (plain,) = execute(http, ASSERT, cheat)
    assert (watched["flags"], plain["flags"], honest["flags"]) == (["operators_overridden"], [], [])
    assert watched["verdict"] == plain["verdict"] == "wrong_answer"
    assert honest["verdict"] == "passed"


def test_what_was_judged_before_is_run_again_when_asked(http: httpx.Client) -> None:
    body = {"items": [{"language": "python", "programs": [unique(ADD)], "tests": ASSERT}]}
    cached = []
    for use_cache in (True, True, False, True):
        answer = http.post("/execute", json=body | {"use_cache": use_cache}).json()
        cached.append(answer["results"][0]["programs"][0]["cached"])
    assert cached == [False, True, False, True]
