"""Checkers, interactors, several answers and files of a case, asked over HTTP; and what is refused before any work."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import Any

import httpx
import pytest

from support.checker_problems import CHECKER_PROBLEMS
from support.interactive_problems import BISECT, GUESS_CPP, INTERACTIVE_PROBLEMS

SOURCE = "import sys\nsys.exit(sorted(open(sys.argv[2]).read().split()) != sorted(open(sys.argv[3]).read().split()))\n"
CHECKER = {"language": "python", "source": SOURCE}


def ask(http: httpx.Client, tests: Any, *programs: str, **item: Any) -> httpx.Response:
    programs = tuple(f"{program}\n# {uuid.uuid4().hex}\n" for program in programs or ("print(1)",))
    return http.post("/execute", json={"items": [{"language": "python", "programs": programs, "tests": tests, **item}]})


def execute(http: httpx.Client, tests: Any, *programs: str, **item: Any) -> list[Any]:
    response = ask(http, tests, *programs, **item)
    assert response.status_code == 200, response.text
    runs: list[Any] = response.json()["results"][0]["programs"]
    return runs


def stdio(*cases: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "stdio", "cases": list(cases) or [{"stdin": "", "stdout": "1"}], **more}


@pytest.mark.parametrize(
    "problem",
    [one for one in CHECKER_PROBLEMS if one.name.startswith(("any ", "wcmp", "rcmp6", "points", "as many"))],
    ids=lambda one: one.name,
)
def test_a_checker_decides_over_http(http: httpx.Client, problem: Any) -> None:
    cases = [{"stdin": given, "stdout": answer} for given, answer in problem.cases]
    tests = stdio(*cases, checker={"language": problem.language, "source": problem.checker})
    programs = [*problem.right, *problem.wrong, *(program for program, _ in problem.partial)]
    runs = execute(http, tests, *programs)
    right, wrong = runs[: len(problem.right)], runs[len(problem.right) :]
    assert {(one["status"], one["verdict"], one["trainable"]) for one in right} == {("ok", "passed", True)}
    assert {(one["status"], one["trainable"]) for one in wrong} == {("ok", True)}
    assert "passed" not in {one["verdict"] for one in wrong}
    for one, (_, score) in zip(wrong[len(problem.wrong) :], problem.partial, strict=True):
        assert one["tests"][0]["score"] == pytest.approx(score)


def test_an_interactor_decides_over_http(http: httpx.Client) -> None:
    tests = stdio({"stdin": "7\n"}, {"stdin": "1000\n"}, interactor={"language": "c++", "source": GUESS_CPP})
    right, wrong = execute(http, tests, BISECT, "print(7)")
    assert (right["verdict"], [test["score"] for test in right["tests"]]) == ("passed", [1.0, 1.0])
    assert (wrong["verdict"], wrong["passed"], wrong["tests"][1]["score"]) == ("wrong_answer", 1, 0.0)
    problem = next(one for one in INTERACTIVE_PROBLEMS if one.score is not None)
    assert problem.score is not None
    program, score = problem.score
    tests = stdio({"stdin": problem.inputs[0]}, interactor={"language": "cpp", "source": problem.interactor})
    assert execute(http, tests, program)[0]["tests"][0]["score"] == pytest.approx(score)


def test_several_answers_and_files_over_http(http: httpx.Client) -> None:
    data = base64.b64encode(b"6 7\n").decode()
    tests = stdio({"stdout": ["42", "forty-two"], "files": {"in/data.txt": data}})
    product = "a, b = map(int, open('in/data.txt').read().split())\nprint(a * b)"
    runs = execute(http, tests, product, "print('forty-two')", "print(43)")
    assert [one["verdict"] for one in runs] == ["passed", "passed", "wrong_answer"]


def test_a_broken_checker_is_an_error_and_no_reward(http: httpx.Client) -> None:
    for source, words in (
        ("import sys\nsys.exit(1)", "cases.0: the checker refuses"),
        ("def check(a, b): return True", "the checker accepts anything"),
        ("def check(", "the checker cannot be loaded: SyntaxError"),
    ):
        tests = stdio(checker={"language": "python", "source": source})
        for one in execute(http, tests, "print(1)", "print(2)"):
            assert (one["status"], one["trainable"], one["verdict"]) == ("invalid", False, None)
            assert one["error"]["code"] == "invalid_tests"
            assert one["error"]["detail"].startswith(words)
    rewarded = {
        "items": [
            {
                "prompt": "p",
                "completions": ["print(1)"],
                "language": "python",
                "tests": stdio(checker={"language": "python", "source": "raise OSError"}),
            }
        ],
        "spec": {"terms": [{"name": "tests", "type": "execute"}]},
    }
    (one,) = http.post("/reward", json=rewarded).json()["results"][0]["completions"]
    assert (one["reward"], one["trainable"]) == (None, False)


def test_a_vacuous_case_is_marked_over_http(http: httpx.Client) -> None:
    source = "import sys\nsys.exit(bool(open('input.txt').read()) and open('output.txt').read() != '1\\n')"
    tests = stdio({"stdout": "1\n"}, {"stdin": "x", "stdout": "1\n"}, checker={"language": "python", "source": source})
    (one,) = execute(http, tests, "print(1)")
    assert [test["vacuous"] for test in one["tests"]] == [True, False]
    (one,) = execute(http, tests, "print(1)", options={"control": False})
    assert [test["vacuous"] for test in one["tests"]] == [False, False]


CASE = {"stdin": "", "stdout": "1"}
FILE = base64.b64encode(b"x").decode()


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (stdio({"stdin": "1"}), "cases.0.stdout: missing; only with a checker or an interactor"),
        (stdio(CASE, {}), "cases.1.stdout: missing"),
        (stdio({"stdout": []}), "at least 1 item"),
        (stdio({"stdout": ["1"] * 17}), "at most 16 items"),
        (stdio(checker=CHECKER, interactor=CHECKER), "one of them, not both"),
        (stdio(checker=CHECKER, compare="tokens"), "compare: the checker decides"),
        (stdio(checker=CHECKER, compare="rstrip"), "compare: the checker decides"),
        (stdio(interactor=CHECKER, rel_tol=0.1), "rel_tol: the interactor decides"),
        (
            stdio({"stdout": ["1", "2"]}, checker=CHECKER),
            "cases.0.stdout: the checker reads one answer, not a list of 2",
        ),
        (stdio(checker={"language": "python"}), "source"),
        (stdio(checker={"language": "python", "source": ""}), "source"),
        (stdio(checker={"language": "klingon", "source": "x"}), "items.0.tests.checker.language: language 'klingon'"),
        (stdio(CASE, CASE | {"files": {"../x": FILE}}), "items.0.tests.cases.1.files: file '../x'"),
        (stdio(CASE, CASE | {"files": {"a": FILE, "a/b": FILE}}), "items.0.tests.cases.1.files: file '/tmp/a'"),
        (stdio(CASE | {"files": {"a": "no base64!"}}), "files"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_field(http: httpx.Client, tests: Any, words: str) -> None:
    response = ask(http, tests)
    assert (response.status_code, response.json()["retryable"]) == (422, False)
    assert words in json.dumps(response.json(), ensure_ascii=False).replace('\\"', '"')


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (
            stdio(CASE, CASE | {"files": {f"f{n}": FILE for n in range(25)}}),
            "items.0.tests.cases.1.files: 25 is more than 24",
        ),
        (
            stdio(CASE | {"files": {"a": base64.b64encode(bytes((16 << 20) + 1)).decode()}}),
            "items.0.tests.cases.0.files: bytes: 1.67772e+07 is more than",
        ),
        (
            stdio(checker={"language": "python", "source": "x" * ((256 << 10) + 1)}),
            "items.0.tests.checker.source: 262145 is more than 262144 (max_code_bytes)",
        ),
    ],
)
def test_what_is_too_large_is_refused_with_its_limit(http: httpx.Client, tests: Any, words: str) -> None:
    response = ask(http, tests)
    assert response.status_code == 413
    assert words in response.json()["detail"]


def test_an_answer_longer_than_a_program_may_print_is_refused(http: httpx.Client) -> None:
    tests = stdio(CASE, {"stdin": "", "stdout": "x" * (1 << 20) + "y"})
    response = ask(http, tests)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_tests")
    assert "items.0.tests.cases.1.stdout: " in response.json()["detail"]
    assert "1048577 bytes" in response.json()["detail"]
    assert "1048576 (1024 KB)" in response.json()["detail"]
    reward = {
        "items": [{"prompt": "p", "completions": ["print(1)"], "language": "python", "tests": tests}],
        "spec": {"terms": [{"name": "tests", "type": "execute"}]},
    }
    assert http.post("/reward", json=reward).status_code == 422
    (one,) = execute(http, tests, "print('x' * (1 << 20) + 'y')", limits={"output_kb": 1025})
    assert (one["verdict"], one["passed"]) == ("wrong_answer", 1)


def test_a_stored_suite_meets_its_limits_when_it_is_used(http: httpx.Client) -> None:
    body = json.dumps(stdio({"stdin": "", "stdout": "x" * 3000}), separators=(",", ":")).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    stored = http.put(f"/testsets/{sha256}", content=body, headers={"content-type": "application/json"})
    assert stored.status_code == 200, stored.text
    ref = {"kind": "ref", "sha256": sha256}
    assert execute(http, ref, "print('x' * 3000)")[0]["verdict"] == "passed"
    (one,) = execute(http, ref, "print('x' * 3000)", limits={"output_kb": 2})
    assert (one["status"], one["error"]["code"]) == ("invalid", "invalid_tests")
    assert "cases.0.stdout" in one["error"]["detail"]
