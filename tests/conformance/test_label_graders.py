"""What the graders that a dialect stands for forgive, import and ask first; and files, arguments, standards by HTTP."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import httpx
import pytest

FENCED = "```python\n{}\n```"


def slime(http: httpx.Client, code: str, label: Any, query: str = "", fenced: str = FENCED) -> Any:
    code = f"{code}\n# {uuid.uuid4().hex}"
    body = {"prompt": "p", "response": fenced.format(code), "label": label}
    return http.post(f"/slime?reward=tests{query}", json=body).json()


def verify(http: httpx.Client, code: str, unit_tests: Any, query: str = "") -> Any:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": FENCED.format(code), "annotations": []}],
    }
    body = {
        "responses_create_params": {"input": [{"role": "user", "content": "..."}]},
        "response": {"id": "r", "object": "response", "output": [message]},
        "verifier_metadata": {"unit_tests": unit_tests},
    }
    return http.post(f"/verify{query}", json=body).json()


def stdio(http: httpx.Client, code: str, tests: Any, query: str = "") -> Any:
    body = {"program": code, "tests": tests, "max_execution_time": 3.0}
    return http.post(f"/test_program_stdio{query}", json=body).json()["results"]


def method(name: str, body: str, before: str = "") -> str:
    return f"{before}class Solution:\n    def {name}(self, a):\n        return {body}"


# --- whose function --------------------------------------------------------------------------------------------------

SOLUTIONS: list[tuple[str, str, Any, Any, float]] = [
    ("merge", method("merge", "sorted(a)", "from heapq import *\n"), [[2, 1, 3]], [1, 2, 3], 1.0),
    ("search", method("search", "a + 1", "from re import *\n"), [1], 2, 1.0),
    ("factorial", method("factorial", "0", "from math import *\n"), [5], 120, 0.0),
    ("gcd", method("gcd", "a", "from math import *\nfrom itertools import *\n"), [5], 5, 1.0),
    ("nlargest", method("nlargest", "0", "from heapq import *\n"), [5], 5, 0.0),
    ("factorial", "from math import *", [5], 120, 0.0),
    ("merge", "x = 1", [[1], [2]], [1, 2], 0.0),
    ("f", "def f(a):\n    return a", [5], 5, 1.0),
]


@pytest.mark.parametrize(("name", "code", "given", "wanted", "reward"), SOLUTIONS)
def test_a_label_s_function_is_the_program_s_own(
    http: httpx.Client, name: str, code: str, given: Any, wanted: Any, reward: float
) -> None:
    label = {"fn_name": name, "inputs": [given], "outputs": [wanted]}
    assert slime(http, code, label) == reward
    assert verify(http, code, label)["reward"] == reward


@pytest.mark.parametrize(
    ("answer", "given", "wanted", "reward"),
    [
        ("[3]", [1], [3], 1.0),
        ("3", [1], [3], 1.0),
        ("(3,)", [1], [3], 1.0),
        ("[3, 3]", [1], [3], 0.0),
        ("(1, 2)", [1], [1, 2], 1.0),
        ("None", [1], None, 1.0),
        ("0", [1], None, 0.0),
        ("a - b", {"b": 2, "a": 5}, 3, 1.0),
        ("b - a", {"b": 2, "a": 5}, 3, 0.0),
        ("3", None, 3, 1.0),
    ],
)
def test_answers_and_arguments_are_read_as_apps_does(
    http: httpx.Client, answer: str, given: Any, wanted: Any, reward: float
) -> None:
    code = f"def f(a=0, b=0):\n    return {answer}"
    assert slime(http, code, {"fn_name": "f", "inputs": [given], "outputs": [wanted]}) == reward


# --- prelude ---------------------------------------------------------------------------------------------------------

BARE = [
    "class Solution:\n    def f(self, a: List[int]) -> int:\n        return max(Counter(a).values())",
    "def f(a):\n    d = defaultdict(int)\n    for x in a:\n        d[x] += 1\n    return max(d.values())",
    "from __future__ import annotations\n@lru_cache(None)\ndef g(n):\n    return n\n"
    "def f(a: Optional[List[int]]):\n    return g(2) if math.gcd(4, 6) == 2 else 0",
]


@pytest.mark.parametrize("code", BARE)
def test_what_graders_import_need_not_be_imported(http: httpx.Client, code: str) -> None:
    label = {"inputs": ["[1,1,2]"], "outputs": ["2"], "fn_name": "f"}
    assert verify(http, code, label)["reward"] == 1.0
    assert slime(http, code, label) == 1.0
    assert slime(http, code, label, "&prelude=none") == 0.0
    assert slime(http, code.replace("return max", "return 1 + max").replace("g(2)", "g(3)"), label) == 0.0


def test_programs_that_print_need_not_import_either(http: httpx.Client) -> None:
    code = "h = []\nheappush(h, int(input()))\nprint(math.factorial(h[0]), Counter('aa')['a'])"
    tests = [{"input": "3\n", "output": "6 2\n"}, {"input": "3\n", "output": "6 3\n"}]
    assert stdio(http, code, tests) == [1, 0]
    assert stdio(http, code, tests, "?prelude=none") == [0, 0]


def test_a_prelude_is_for_programs_of_python(http: httpx.Client) -> None:
    code = "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << 2.0 * x; }"
    label = {"inputs": ["1"], "outputs": ["2.0"]}
    body = {"prompt": "p", "response": f"```cpp\n{code}\n```", "label": label}
    assert http.post("/slime?reward=tests&language=c%2B%2B20", json=body).json() == 1.0


# --- comparison ------------------------------------------------------------------------------------------------------

PRINTED = [  # printed, expected, alike for NeMo-Gym (1e-6), alike for LiveCodeBench
    ("1.0", "1", 1, 1),
    ("2.50", "2.5", 1, 1),
    (" 5", "5", 1, 1),
    ("1  2", "1 2", 1, 1),
    ("\\n5\\n\\n", "5", 1, 1),
    ("0.333333", "0.333333333333", 1, 0),
    ("0.30000000000000004", "0.3", 1, 0),
    ("1 2", "1\n2", 0, 0),
    ("1000001", "1000000", 0, 0),
    ("yes", "YES", 0, 0),
    ("5", "6", 0, 0),
]


def test_outputs_are_compared_as_each_grader_does(http: httpx.Client) -> None:
    for printed, expected, nemo, lcb in PRINTED:
        code = f"print('{printed}')"
        assert verify(http, code, {"inputs": [""], "outputs": [expected]})["reward"] == nemo, printed
        assert stdio(http, code, [{"input": "", "output": expected}]) == [lcb], printed
        assert slime(http, code, {"inputs": [""], "outputs": [expected]}) == lcb, printed


def test_a_url_says_how_outputs_are_compared(http: httpx.Client) -> None:
    label = {"inputs": [""], "outputs": ["0.5 1\n"]}
    for code, query, reward in (
        ("print('0.5004', 1)", "", 0.0),
        ("print('0.5004', 1)", "&rel_tol=1e-2", 1.0),
        ("print('0.5004', 1)", "&compare=float&rel_tol=1e-2", 1.0),
        ("print('0.50', 1)", "&compare=tokens", 0.0),
        ("print('0.5\\n1')", "&compare=tokens", 1.0),
        ("print('0.5 1 ')", "&compare=rstrip", 1.0),
        ("print('0.5 1 ')", "&compare=exact", 0.0),
    ):
        assert slime(http, code, label, query) == reward, (code, query)
    assert verify(http, "print(1.01, 1)", {"inputs": [""], "outputs": ["1 1"]}, "?rel_tol=0.1")["reward"] == 1.0


@pytest.mark.parametrize(
    "query",
    [
        "compare=fuzzy",
        "rel_tol=x",
        "rel_tol=-1",
        "compare=exact&rel_tol=0.1",
        "prelude=x",
    ],
)
def test_a_comparison_that_does_not_exist_is_refused(http: httpx.Client, query: str) -> None:
    body = {"prompt": "p", "response": FENCED.format("print(1)"), "label": {"inputs": [""], "outputs": ["1"]}}
    for path, sent in (
        ("/slime", body),
        ("/get_reward", {"query": [body["response"]], "prompts": ["p"], "labels": [body["label"]]}),
        ("/test_program_stdio", {"program": "print(1)", "tests": [{"input": "", "output": "1"}]}),
    ):
        answer = http.post(f"{path}?{query}", json=sent)
        assert (answer.status_code, "URL parameter" in answer.json()["detail"]) == (422, True), path


def test_null_streams_are_empty(http: httpx.Client) -> None:
    code = "import sys\nprint(len(sys.stdin.read()))"
    assert slime(http, code, {"inputs": [None], "outputs": ["0"]}) == 1.0
    assert slime(http, "print()", {"inputs": [""], "outputs": [None]}) == 1.0
    assert slime(http, "print(None)", {"inputs": [""], "outputs": [None]}) == 0.0


# --- fences ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fenced",
    [
        "```python\r\n{}\r\n```\r\n",
        "1. So:\n\n   ```python\n   {}\n   ```\n",
        "~~~python\n{}\n~~~",
        '```python title="a.py"\n{}\n```\nprints\n```text\n9\n```',
    ],
)
def test_completions_of_every_form_have_their_program(http: httpx.Client, fenced: str) -> None:
    body = {"prompt": "p", "response": fenced.format("print(8)"), "label": {"inputs": [""], "outputs": ["8"]}}
    assert http.post("/slime?reward=tests", json=body).json() == 1.0
    item = {
        "language": "python",
        "extract": "last_fence",
        "programs": [fenced.format("print(8)")],
        "tests": {"kind": "stdio", "cases": [{"stdin": "", "stdout": "8\n"}]},
    }
    if "9" not in fenced:  # natively it is the last fence, whatever its tag
        (program,) = http.post("/execute", json={"items": [item]}).json()["results"][0]["programs"]
        assert program["verdict"] == "passed"


# --- native words ----------------------------------------------------------------------------------------------------


def execute(http: httpx.Client, language: str, program: str, tests: dict[str, Any], **more: Any) -> Any:
    item = {"language": language, "programs": [program], "tests": tests, **more}
    answer = http.post("/execute", json={"items": [item]})
    return answer.json()["results"][0]["programs"][0] if answer.status_code == 200 else answer


IO = {"kind": "stdio", "cases": [{"stdin": "", "stdout": "3"}]}
RANGES = "#include <ranges>\n#include <iostream>\nint main(){ for(int i: std::views::iota(3,4)) std::cout<<i; }"


def test_a_standard_is_a_language_s_name(http: httpx.Client) -> None:
    for name, verdict in (("c++20", "passed"), ("cpp20", "passed"), ("c++23", "passed"), ("c++17", "compile_error")):
        assert execute(http, name, RANGES, IO)["verdict"] == verdict
    body = {"language": "c++20", "version": "*", "files": [{"name": "a.cpp", "content": RANGES}]}
    assert http.post("/api/v2/execute", json=body).json()["run"]["stdout"] == "3"
    done = http.post("/run_code", json={"language": "cpp20", "code": RANGES}).json()
    assert done["run_result"]["stdout"] == "3"
    offered = {one["name"]: one for one in http.get("/languages").json()["languages"]}
    assert "c++20" not in offered["cpp"]["aliases"]
    assert "cpp20" in offered["cpp"]["variants"]["c++20"]
    names = {one["language"] for one in http.get("/api/v2/runtimes").json()}
    assert {"cpp", "c++20", "c++23"} <= names


def test_packages_are_listed_and_missing_ones_are_named(http: httpx.Client) -> None:
    offered = {one["name"]: one for one in http.get("/languages").json()["languages"]}
    assert all(package["name"] and package["version"] for package in offered["python"]["packages"])
    program = f"import nowhere_at_all  # {uuid.uuid4().hex}"
    failed = execute(http, "python", program, IO)
    assert (failed["verdict"], failed["flags"]) == ("runtime_error", ["module_unavailable:nowhere_at_all"])
    assert failed["trainable"]
    without = execute(http, "python", program, IO, options={"missing_modules": "invalid"})
    assert (without["status"], without["error"]["code"]) == ("invalid", "module_unavailable")
    assert not without["trainable"]
    assert 'plaudit_module_unavailable_total{module="nowhere_at_all"} 2.0' in http.get("/metrics").text


@pytest.mark.parametrize(
    "tests",
    [
        {"kind": "assert", "asserts": ["assert f([2]) == 2"]},
        {"kind": "script", "source": "assert f([2]) == 2"},
        {"kind": "check", "test": "def check(c):\n    assert c([2]) == 2", "entry_point": "f"},
        {"kind": "function", "entry_point": "f", "cases": [{"args": [[2]], "expected": 0, "also": [1, 2]}]},
    ],
)
def test_a_prelude_is_seen_by_the_program(http: httpx.Client, tests: dict[str, Any]) -> None:
    tests = {**tests, "prelude": "from collections import *\nfrom typing import *\n"}
    assert execute(http, "python", "def f(a: List[int]):\n    return max(deque(a))", tests)["verdict"] == "passed"
    assert execute(http, "python", "def f(a: List[int]):\n    return 3 + max(deque(a))", tests)["verdict"] != "passed"
    broken = execute(http, "python", "def f(a): return 2", {**tests, "prelude": "import nowhere_at_all"})
    assert (broken["status"], broken["error"]["code"]) == ("invalid", "invalid_tests")


def test_a_call_is_no_name(http: httpx.Client) -> None:
    for name in ("Solution().f", "f()", "f g", "1"):
        tests = {"kind": "function", "entry_point": name, "cases": [{"args": [1], "expected": 1}]}
        answer = execute(http, "python", "class Solution:\n    def f(self, x): return x", tests)
        assert answer.status_code == 422
        assert ("write 'Solution.f'" in answer.text) == (name == "Solution().f")


# --- files, arguments, go test ---------------------------------------------------------------------------------------


def test_run_code_s_files_are_there_for_the_compiler(http: httpx.Client) -> None:
    header = base64.b64encode(b"inline int seven(){return 7;}\n").decode()
    body = {
        "language": "cpp",
        "code": '#include "testlib.h"\n#include <iostream>\nint main(){ std::cout<<seven(); }',
        "files": {"testlib.h": header},
    }
    assert http.post("/run_code", json=body).json()["run_result"]["stdout"] == "7"


def test_run_code_s_go_test_is_go_test(http: httpx.Client) -> None:
    code = (
        'package add\nimport "testing"\nfunc Add(a, b int) int { return a + b }\n'
        'func TestAdd(t *testing.T) { if Add(1, 2) != %d { t.Fatal("no") } }'
    )
    for number, status in ((3, "Success"), (4, "Failed")):
        assert http.post("/run_code", json={"language": "go_test", "code": code % number}).json()["status"] == status


def test_piston_s_arguments_and_encodings(http: httpx.Client) -> None:
    def run(content: str, encoding: str | None, *more: dict[str, str], **fields: Any) -> httpx.Response:
        file = {"name": "main.py", "content": content} | ({"encoding": encoding} if encoding else {})
        body = {"language": "python", "version": "*", "files": [file, *more], **fields}
        return http.post("/api/v2/execute", json=body)

    code = "import sys\nprint(sys.argv[1:], open('data.bin', 'rb').read())"
    data = {"name": "data.bin", "content": "/wA=", "encoding": "base64"}
    for text, encoding in (
        (code, None),
        (code, "utf8"),
        (base64.b64encode(code.encode()).decode(), "base64"),
        (code.encode().hex(), "hex"),
    ):
        done = run(text, encoding, data, args=["a b", "c"]).json()
        assert done["run"]["stdout"] == "['a b', 'c'] b'\\xff\\x00'\n"
    assert run("!", "base64").status_code == 400
    assert run("zz", "hex").status_code == 400
    assert run("/w==", "base64").status_code == 400
    assert run("x", "rot13").status_code == 422


def test_piston_s_further_files_are_there_for_the_compiler(http: httpx.Client) -> None:
    main = '#include "h.h"\n#include <cstdio>\nint f();\nint main() { printf("%d", f() + H); }'
    texts = {"a.cpp": main, "h.h": "#define H 2", "f.cpp": "int f() { return 5; }"}
    files = [{"name": name, "content": text} for name, text in texts.items()]
    done = http.post("/api/v2/execute", json={"language": "c++", "version": "*", "files": files}).json()
    assert done["run"]["stdout"] == "7", done
