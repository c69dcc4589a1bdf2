"""The default reward over HTTP: no program that fails is put over one that passes more, with or without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from plaudit import Client
from plaudit.schemas import RewardItem
from plaudit.tests_first import SMALLEST_STEP
from support.stack import Stack

PROMPT = "Write a function add(a, b) that returns the sum of two numbers."
TESTS = {
    "kind": "assert",
    "asserts": [*(f"assert add({n}, 1) == {n + 1}" for n in range(9)), "assert add(0.5, 0.25) == 0.75"],
}
RIGHT, ALSO = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return b + a\n"
NEARLY = "def add(a, b):\n    return int(a) + int(b)\n"
FAR = "def add(a, b):\n    return 1\n"


def item(*completions: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "completions": list(completions), "tests": TESTS, **fields}


def ranked(http: httpx.Client, *items: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    response = http.post("/rank", json={"items": list(items), **fields})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def rising(http: httpx.Client, *programs: str) -> list[str]:
    """These programs by the model's score, the worst first."""
    scores = http.post("/score", json={"items": [{"prompt": PROMPT, "completions": list(programs)}]}).json()
    logits = [one["score"] for one in scores["results"][0]["completions"]]
    return [text for _, text in sorted(zip(logits, programs, strict=True))]


@pytest.mark.parametrize("weight", [1e9, 1.0, -1e9])
@pytest.mark.parametrize("policy", ["pass_rate", "all_or_nothing"])
def test_no_weight_of_the_model_puts_a_failure_first(http: httpx.Client, weight: float, policy: str) -> None:
    spec = {
        "combine": "tests_first",
        "terms": [
            {"name": "tests", "type": "execute", "policy": policy},
            {"name": "rm", "type": "score", "weight": weight},
        ],
    }
    for completions in ((NEARLY, RIGHT, FAR), (FAR, NEARLY, RIGHT)):
        (result,) = ranked(http, item(*completions), spec=spec)
        assert [completions[at] for at in result["order"]] == [RIGHT, NEARLY, FAR]


def test_the_default_ranks_by_tests_and_says_so(http: httpx.Client) -> None:
    for completions in ((RIGHT, NEARLY), (NEARLY, RIGHT), (FAR, RIGHT), (NEARLY, FAR)):
        (result,) = ranked(http, item(*completions))
        best = result["completions"][result["group"]["best"]]
        others = [one for one in result["completions"] if one is not best]
        assert all(best["components"]["tests"]["value"] > one["components"]["tests"]["value"] for one in others)
        assert [name for name, part in best["components"].items() if part["decided"]] == ["tests"]
        assert result["group"]["margin"] == pytest.approx(best["reward"] - others[0]["reward"])
        for one in result["completions"]:
            assert one["reward"] == sum(part["contribution"] for part in one["components"].values())
            assert 0 <= one["components"]["rm"]["contribution"] < 1 / SMALLEST_STEP


def test_among_equals_the_model_decides(http: httpx.Client) -> None:
    low, high = rising(http, RIGHT, ALSO)
    (result,) = ranked(http, item(low, high, NEARLY))
    assert result["order"] == [1, 0, 2]
    assert [name for name, part in result["completions"][1]["components"].items() if part["decided"]] == ["rm"]


def test_an_item_without_tests_is_ranked_by_evidence_beside_one_with_them(http: httpx.Client) -> None:
    low, high = rising(http, RIGHT, ALSO)
    without, with_tests, again = ranked(
        http,
        {"prompt": PROMPT, "completions": [low, high]},
        item(NEARLY, RIGHT),
        {"prompt": PROMPT, "completions": [high, low]},
    )
    assert (without["order"], again["order"], with_tests["order"]) == ([1, 0], [0, 1], [1, 0])
    assert [list(one["completions"][0]["components"]) for one in (without, with_tests)] == [
        ["examples", "behavior", "consensus", "rm"],
        ["tests", "rm"],
    ]


def test_tests_that_are_empty_or_none_of_the_kinds_are_refused(http: httpx.Client) -> None:
    bad: list[Any] = [
        [],
        {},
        "assert add(1, 2) == 3",
        {"kind": "assert", "asserts": []},
        {"kind": "stdio", "cases": []},
        {"kind": "assert"},
        {"kind": "assert", "asserts": [""]},
        {"kind": "magic"},
    ]
    for tests in bad:
        for path in ("/rank", "/reward"):
            response = http.post(path, json={"items": [{"prompt": "p", "completions": [RIGHT], "tests": tests}]})
            assert (response.status_code, response.json()["code"]) == (422, "invalid"), (tests, response.text)


def test_best_of_n_takes_the_one_that_passes_and_says_what_decided(stack: Stack, http: httpx.Client) -> None:
    low, high = rising(http, RIGHT, NEARLY)
    with Client(stack.url) as client:
        for completions in ([NEARLY, RIGHT, FAR], [FAR, RIGHT, NEARLY]):
            best = client.best_of_n(PROMPT, completions, TESTS)
            assert (best.index, best.decided_by) == (1, "tests")
        model = client.best_of_n(PROMPT, [low, high])
        assert (model.completion, model.decided_by) == (high, "rm")
        assert client.best_of_n(PROMPT, [RIGHT, RIGHT], TESTS).decided_by is None


def test_the_command_ranks_rows_with_and_without_tests(stack: Stack, http: httpx.Client, tmp_path: Path) -> None:
    low, high = rising(http, RIGHT, NEARLY)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    lines = [{"prompt": PROMPT, "completions": [low, high]}, item(NEARLY, RIGHT)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = [sys.executable, "-m", "service.cli", "rank", str(rows), "--url", stack.url, "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["order"] for line in out.read_text().splitlines()] == [[1, 0], [1, 0]]


def test_without_a_scorer_the_tests_alone_make_the_reward(make_stack: Any) -> None:
    stack = make_stack(scorers=0)
    with stack.client() as http:
        (result,) = _until_it_runs(http, item(NEARLY, RIGHT))
        assert [one["reward"] for one in result["completions"]] == [0.9, 1.0]
        for one in result["completions"]:
            assert (one["status"], one["trainable"]) == ("ok", True)
            rm = one["components"]["rm"]
            assert (rm["status"], rm["value"], rm["contribution"]) == ("infra_error", None, 0.0)
            assert rm["error"]["code"] == "no_worker"
        alone = http.post("/reward", json={"items": [{"prompt": PROMPT, "completions": [RIGHT, ALSO]}]})
        assert (alone.status_code, alone.json()["code"]) == (503, "no_worker")
        needed = {"terms": [{"name": "tests", "type": "execute"}, {"name": "rm", "type": "score"}]}
        assert http.post("/rank", json={"items": [item(RIGHT)], "spec": needed}).status_code == 503


def _until_it_runs(http: httpx.Client, one: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask until the executor has announced itself: such a deployment is never ready."""
    from support.stack import wait_for

    def asked() -> Any:
        response = http.post("/rank", json={"items": [one]})
        return response.json()["results"] if response.status_code == 200 else None

    found: list[dict[str, Any]] = wait_for(asked, 60.0, "an executor")
    return found


def test_the_page_s_own_example_is_of_the_contract_and_right(http: httpx.Client) -> None:
    page = http.get("/").text
    assert "weight: 0.7" not in page
    completions = [RIGHT, NEARLY, "def add(a, b):\n    return a - b\n"]
    asserts = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(0.5, 0.25) == 0.75"]
    one = {
        "prompt": PROMPT,
        "completions": completions,
        "language": "python",
        "extract": "none",
        "tests": {"kind": "assert", "asserts": asserts},
    }
    RewardItem.model_validate(one)
    (result,) = ranked(http, one, early_stop=False)
    assert result["order"] == [0, 1, 2]
