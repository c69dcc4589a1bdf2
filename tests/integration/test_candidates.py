"""The log of scored and executed candidates: off unless asked for, silent about who asked, mined for training."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from plaudit.errors import UsageError
from support.stack import Stack, wait_for
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem
from training.rewardranker.from_service_log import read_logged_groups

GOOD, BAD = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
TESTS = {"kind": "assert", "asserts": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}
BOTH = {"terms": [{"name": "tests", "type": "execute"}, {"name": "rm", "type": "score", "weight": 0.1}]}
KEY = "a-key-that-is-nobodys-business"


def ask(http: httpx.Client, prompt: str, spec: dict[str, Any] = BOTH) -> dict[str, Any]:
    item = {"prompt": prompt, "completions": [GOOD, BAD], "tests": TESTS}
    response = http.post("/reward", json={"spec": spec, "items": [item]}, headers={"Authorization": f"Bearer {KEY}"})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_what_was_scored_and_executed_is_logged_when_asked_for_and_mined(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    folder = tmp_path / "candidates"
    stack = make_stack(candidates_dir=str(folder), api_key=KEY)
    with httpx.Client(base_url=stack.url, timeout=60.0) as http:
        answer = ask(http, "Add two numbers.")
        ask(http, "Only tests.", {"terms": [{"name": "tests", "type": "execute"}]})  # no score: nothing to disagree
        (path,) = wait_for(lambda: list(folder.glob("*.jsonl")), what="the log")
        lines = wait_for(lambda: len(rows := list(read_jsonl(path))) >= 2 and rows, what="two lines")
    completions = answer["results"][0]["completions"]
    assert [line["score"] for line in lines] == [one["components"]["rm"]["value"] for one in completions]
    assert [(line["completion"], line["verdict"], line["pass_rate"]) for line in lines] == [
        (GOOD, "passed", 1.0),
        (BAD, "wrong_answer", 0.5),
    ]
    assert {line["prompt"] for line in lines} == {"Add two numbers."}
    assert {line["revision"] for line in lines} == {answer["models"][0]["revision"]}
    assert set(lines[0]) == {
        "prompt",
        "completion",
        "language",
        "tests",
        "score",
        "model",
        "revision",
        "verdict",
        "pass_rate",
    }
    assert KEY not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    seen = read_logged_groups(str(folder), [], 13)
    ((name, problem),) = seen.problems.items()
    assert problem.prompt == "Add two numbers."
    assert {program.completion: program.pass_rate for program in seen.programs[name]} == {GOOD: 1.0, BAD: 0.5}


def test_a_problem_that_is_held_out_is_not_learnt_from_because_somebody_asked_about_it(tmp_path: Path) -> None:
    held = Problem(
        task_id="T/1",
        base_id="T/1",
        prompt="Add two numbers.",
        entry_point="add",
        canonical=None,
        test_setup="",
        tests=(),
        source="own",
        license="Apache-2.0",
        fold="test",
    )
    line = {
        "prompt": "Add two numbers.\n",
        "completion": GOOD,
        "language": "python",
        "tests": TESTS,
        "score": 1.0,
        "pass_rate": 1.0,
    }
    other = line | {"prompt": "Subtract two numbers."}
    (tmp_path / "candidates-1.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (line, other)))
    seen = read_logged_groups(str(tmp_path), [held], 13)
    assert [problem.prompt for problem in seen.problems.values()] == ["Subtract two numbers."]
    assert seen.held_out == 1


def test_a_folder_of_logs_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no folder"):
        read_logged_groups("nowhere", [], 13)


@pytest.mark.extended
def test_a_full_log_is_no_reason_to_refuse_an_answer(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack(candidates_dir=str(tmp_path), max_candidates_bytes="1", api_key=KEY)
    with httpx.Client(base_url=stack.url, timeout=60.0) as http:
        assert ask(http, "Add.")["results"][0]["completions"][0]["status"] == "ok"
        assert stack.api is not None
        api = stack.api
        wait_for(lambda: any("candidates are not logged" in line["message"] for line in api.logged()), what="a warning")
    assert not list(tmp_path.glob("*.jsonl"))
