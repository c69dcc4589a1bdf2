"""Other languages and the `script` kind over HTTP: what is offered, what is judged, and what is missing."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx
import pytest

from plaudit.languages import ALIASES
from sandbox.language_specs import LANGUAGE_SPECS


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def offered(http: httpx.Client) -> dict[str, Any]:
    return {one["name"]: one for one in ok(http.get("/languages"))["languages"]}


def execute(http: httpx.Client, language: str, tests: Any, *programs: str, **item: Any) -> list[Any]:
    body = {"items": [{"language": language, "programs": list(programs), "tests": tests, **item}]}
    runs: list[Any] = ok(http.post("/execute", json=body))["results"][0]["programs"]
    return runs


SCRIPTS = {
    "python": ("def f(x):\n    return {}\n", "assert f(20) == 21"),
    "cpp": ("int f(int x) { return {}; }\n", "#include <cassert>\nint main() { assert(f(20) == 21); }"),
    "java": (
        "class Solution { static int f(int x) { return {}; } }",
        "public class Main { public static void main(String[] a) { assert Solution.f(20) == 21; } }",
    ),
    "javascript": ("const f = x => {}", "require('assert').strictEqual(f(20), 21)"),
    "bash": ("f() { x=$1; echo $(({})); }", "[ $(f 20) = 21 ]"),
}


def test_every_language_is_offered_with_its_version_its_names_and_its_kinds(http: httpx.Client) -> None:
    languages = offered(http)
    assert set(languages) <= {recipe.name for recipe in LANGUAGE_SPECS}
    for recipe in LANGUAGE_SPECS:
        if recipe.name in languages:
            assert languages[recipe.name]["version"][0].isdigit()
            assert languages[recipe.name]["aliases"] == list(ALIASES[recipe.name])
            assert {"stdio", "script"} <= set(languages[recipe.name]["kinds"])


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_script_s_exit_code_is_the_verdict(http: httpx.Client, language: str) -> None:
    if language not in offered(http):
        pytest.skip(f"needs the toolchain of {language} (make toolchains)")
    program, test = SCRIPTS[language]
    right, wrong, broken = (program.replace("{}", body) for body in ("x + 1", "x + 2", "x +"))
    tests = {"kind": "script", "source": test}
    passed, failed, nonsense = execute(http, language, tests, right, wrong, broken)
    assert (passed["verdict"], passed["passed"], passed["total"]) == ("passed", 1, 1), passed
    assert (passed["judge"], passed["trainable"], passed["pass_rate"]) == ("shared_process", True, 1.0)
    assert (failed["verdict"], failed["pass_rate"], failed["trainable"]) == ("runtime_error", 0.0, True), failed
    assert nonsense["verdict"] in ("compile_error", "runtime_error")
    assert (passed["compile"] is not None) == (language in ("cpp", "java"))


def test_a_script_may_take_the_programs_place_and_be_stored(http: httpx.Client) -> None:
    suite = {"kind": "script", "source": "import program\nassert program.f(20) == 21", "position": "replace"}
    body = json.dumps(suite).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    assert ok(http.put(f"/testsets/{sha256}", content=body, headers={"Content-Type": "application/json"}))["tests"] == 1
    program = "def f(x):\n    return x + 1\nif __name__ == '__main__':\n    raise SystemExit(9)\n"
    (one,) = execute(http, "py3", {"kind": "ref", "sha256": sha256}, program)
    assert (one["verdict"], one["judge"]) == ("passed", "shared_process"), one


def test_a_script_rewards_as_other_tests_do(http: httpx.Client) -> None:
    spec = {"terms": [{"name": "tests", "type": "execute"}]}
    tests = {"kind": "script", "source": "assert f() == 1"}
    item = {"prompt": "p", "completions": ["def f(): return 2", "def f(): return 1"], "tests": tests}
    answer = ok(http.post("/rank", json={"spec": spec, "items": [item]}))["results"][0]
    assert answer["order"] == [1, 0]
    assert [one["reward"] for one in answer["completions"]] == [0.0, 1.0]


@pytest.mark.parametrize(
    "tests",
    [
        {"kind": "script"},
        {"kind": "script", "source": ""},
        {"kind": "script", "source": "x", "position": "prepend"},
        {"kind": "script", "source": "x", "asserts": ["x"]},
    ],
)
def test_a_script_s_fields_are_checked(http: httpx.Client, tests: Any) -> None:
    body = {"items": [{"language": "python", "programs": ["x"], "tests": tests}]}
    answer = http.post("/execute", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_values_of_other_languages_cannot_be_looked_into(http: httpx.Client) -> None:
    (one,) = execute(http, "ruby", {"kind": "assert", "asserts": ["assert f() == 1"]}, "def f() = 1")
    assert (one["status"], one["trainable"], one["verdict"]) == ("invalid", False, None)
    assert one["error"]["code"] == "kind_unavailable"
    assert "they take" in one["error"]["detail"]
    assert "assert" in one["error"]["detail"]


def test_a_language_that_nobody_knows_is_invalid(http: httpx.Client) -> None:
    (one,) = execute(http, "cobol", {"kind": "script", "source": "x"}, "x")
    assert (one["status"], one["error"]["code"], one["pass_rate"]) == ("invalid", "language_unknown", None)
