"""`/run_code` and its family under the `sandbox-fusion` package, verl's own module, and ROLL's way of posting."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.stack import Stack

FENCED = "Here you are:\n```python\n{}\n```\n"
DOUBLE = "print(int(input()) * 2)"


@pytest.fixture
def fusion(stack: Stack) -> Any:
    package = pytest.importorskip("sandbox_fusion")
    package.set_endpoint(stack.url)
    return package


def executed(stack: Stack) -> float:
    return stack.metric('plaudit_jobs_total{kind="execute",state="ok"}')


# --- the package -----------------------------------------------------------------------------------------------------


def test_the_package_runs_code(fusion: Any) -> None:
    done = fusion.run_code(fusion.RunCodeRequest(code=DOUBLE, language="python", stdin="21"), max_attempts=1)
    assert (done.status, done.run_result.status) == ("Success", "Finished")
    assert (done.run_result.stdout, done.run_result.return_code) == ("42\n", 0)
    assert done.compile_result is None


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("print(1)", "ok"),
        ("import sys; sys.exit(3)", "failed"),
        ("while True: pass", "late"),
        ("import time; time.sleep(60)", "late"),
        ("x = bytearray(4 << 30)", "failed"),
        ("while True: print('x' * 1000)", "failed"),
    ],
)
def test_the_package_tells_endings_apart(fusion: Any, code: str, word: str) -> None:
    request = fusion.RunCodeRequest(code=code, language="python", run_timeout=1)
    done = fusion.run_code(request, max_attempts=1)
    mapping = fusion.SummaryMapping(Success="ok", RunFailed="failed", RunTimeout="late", Failed="?")
    assert fusion.summary_run_code_result(done, mapping) == word


def test_the_package_sees_a_compiler(fusion: Any) -> None:
    good = "#include <iostream>\nint main() { int a; std::cin >> a; std::cout << 2 * a; }"
    done = fusion.run_code(fusion.RunCodeRequest(code=good, language="cpp", stdin="21"), max_attempts=1)
    assert (done.compile_result.return_code, done.run_result.stdout) == (0, "42")
    done = fusion.run_code(fusion.RunCodeRequest(code="int main( {", language="cpp"), max_attempts=1)
    assert (done.status, done.run_result) == ("Failed", None)
    assert "error" in done.compile_result.stderr


def test_files_go_in_and_come_out(fusion: Any) -> None:
    code = "open('out.txt', 'w').write(open('data/in.txt').read().upper())"
    files = {"data/in.txt": base64.b64encode(b"hello").decode()}
    request = fusion.RunCodeRequest(code=code, language="python", files=files, fetch_files=["out.txt"])
    done = fusion.run_code(request, max_attempts=1)
    assert {name: base64.b64decode(text) for name, text in done.files.items()} == {"out.txt": b"HELLO"}


@pytest.mark.parametrize("size", [100_000, 200_000, 1 << 20])
def test_large_outputs_are_whole(fusion: Any, size: int) -> None:
    request = fusion.RunCodeRequest(code=f"print('x' * {size})", language="python")
    assert fusion.run_code(request, max_attempts=1).run_result.stdout == "x" * size + "\n"


def test_output_that_is_no_text_is_readable(fusion: Any) -> None:
    code = "import sys\nsys.stdout.buffer.write(b'a\\xff\\x00b')"
    done = fusion.run_code(fusion.RunCodeRequest(code=code, language="python"), max_attempts=1)
    assert done.run_result.stdout == "a\ufffd\x00b"


def test_cells_share_one_notebook(fusion: Any) -> None:
    cells = [
        "a = 20",
        "print(a)\na + 1",
        "import sys; print('aside', file=sys.stderr)",
        "raise RuntimeError('no')",
        "import subprocess; _ = subprocess.run(['python3', '-c', 'print(a := 1)'])",
    ]
    done = fusion.run_jupyter(fusion.RunJupyterRequest(cells=cells), max_attempts=1)
    assert done.status == "Success"
    assert [cell.stdout for cell in done.cells] == ["", "20\n", "", "", "1\n"]
    assert [cell.display for cell in done.cells] == [[], [{"text/plain": "21"}], [], [], []]
    assert done.cells[2].stderr == "aside\n"
    assert [(one["ename"], one["evalue"]) for one in done.cells[3].error] == [("RuntimeError", "no")]


def test_a_notebook_that_takes_too_long_keeps_what_it_did(fusion: Any) -> None:
    request = fusion.RunJupyterRequest(cells=["print('first')", "while True: pass"], total_timeout=2)
    done = fusion.run_jupyter(request, max_attempts=1)
    assert (done.status, done.driver.status) == ("Failed", "TimeLimitExceeded")
    assert [cell.stdout for cell in done.cells] == ["first\n"]
    request = fusion.RunJupyterRequest(cells=["while True: pass", "print('next')"], cell_timeout=0.5)
    done = fusion.run_jupyter(request, max_attempts=1)
    assert [[one["ename"] for one in cell.error] for cell in done.cells] == [["TimeoutError"], []]


ROW = {
    "id": "1",
    "content": "double it",
    "labels": {},
    "test": [
        {"input": {"stdin": "1\n"}, "output": {"stdout": "2\n"}},
        {"input": {"stdin": "4\n"}, "output": {"stdout": "8.0\n"}},
    ],
}


def test_a_submission_is_judged_by_tests_that_come_along(fusion: Any) -> None:
    config = fusion.TestConfig(language="python", provided_data=[ROW])
    request = fusion.SubmitRequest(dataset="mine", id="1", completion=FENCED.format(DOUBLE), config=config)
    done = fusion.submit(request, max_attempts=1)
    assert (done.accepted, done.extracted_code, done.extracted_type) == (True, DOUBLE + "\n", "fenced")
    assert [test.passed for test in done.tests] == [True, True]
    wrong = request.copy(update={"completion": FENCED.format("print(3)")})
    done = fusion.submit(wrong, max_attempts=1)
    assert (done.accepted, [test.passed for test in done.tests]) == (False, [False])
    done = fusion.submit(request.copy(update={"completion": "I cannot."}), max_attempts=1)
    assert (done.accepted, done.extracted_type, done.tests) == (False, "empty", [])


def test_a_submission_is_judged_by_a_suite_that_is_stored(fusion: Any, http: httpx.Client) -> None:
    suite = json.dumps({"kind": "assert", "asserts": ["assert twice(2) == 4"]}).encode()
    sha256 = hashlib.sha256(suite).hexdigest()
    http.put(f"/testsets/{sha256}", content=suite, headers={"Content-Type": "application/json"}).raise_for_status()
    code = "def twice(x):\n    return 2 * x"
    request = fusion.SubmitRequest(
        dataset="testsets", id=sha256, completion=FENCED.format(code), config=fusion.TestConfig()
    )
    assert fusion.submit(request, max_attempts=1).accepted
    assert http.get("/list_datasets").json() == ["testsets"]
    assert http.post("/get_prompt_by_id", json={"dataset": "testsets", "id": sha256}).json()["id"] == sha256
    assert http.post("/get_prompts", json={"dataset": "other", "config": {}}).status_code == 400


def test_code_for_the_service_itself_is_refused(http: httpx.Client) -> None:
    config = {"custom_extract_logic": "submit_code_blocks([])", "provided_data": ROW}
    answer = http.post("/submit", json={"dataset": "d", "id": 1, "completion": "", "config": config})
    assert answer.status_code == 422


def test_ping(http: httpx.Client) -> None:
    assert http.get("/v1/ping").json() == "pong"


# --- verl ------------------------------------------------------------------------------------------------------------


def score(verl: Any, stack: Stack, completion: str, tests: dict[str, Any], **options: Any) -> tuple[float, list[Any]]:
    semaphore = threading.Semaphore(8)
    scored: tuple[float, list[Any]] = verl.compute_score(
        f"{stack.url}/run_code", semaphore, 1024, completion, tests, continuous=True, **options
    )
    return scored


def test_verl_scores_by_standard_input(verl_sandbox: Any, stack: Stack) -> None:
    tests = {"inputs": ["1\n", "2\n", "3\n"], "outputs": ["2\n", "4\n", "7\n"]}
    value, metadata = score(verl_sandbox, stack, FENCED.format(DOUBLE), tests)
    assert value == pytest.approx(2 / 3)
    assert [one["status"] for one in metadata] == ["success", "success", "wrong_answer"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(2)", "runtime_error"), ("while True: pass", "timeout")],
)
def test_verl_hears_of_a_program_s_end(verl_sandbox: Any, stack: Stack, code: str, status: str) -> None:
    _, metadata = score(verl_sandbox, stack, FENCED.format(code), {"inputs": [""], "outputs": ["1"]}, timeout=1)
    assert [one["status"] for one in metadata] == [status]


def test_verl_hears_of_a_program_that_does_not_compile(verl_sandbox: Any, stack: Stack) -> None:
    results, _ = verl_sandbox.check_correctness(
        f"{stack.url}/run_code", {"inputs": ["", ""], "outputs": ["", ""]}, "int main( {", language="cpp"
    )
    assert results == [-4, -4]


def test_verl_calls_functions(verl_sandbox: Any, stack: Stack) -> None:
    tests = {"inputs": ["2\n3", '"a"\n2'], "outputs": ["6", "aa"], "fn_name": "mul"}
    value, _ = score(verl_sandbox, stack, FENCED.format("def mul(a, b):\n    return a * b"), tests)
    assert value == 1.0
    solution = "class Solution:\n    def mul(self, a, b):\n        return a * b"
    assert score(verl_sandbox, stack, FENCED.format(solution), tests)[0] == 1.0


def test_verl_runs_asserts(verl_sandbox: Any, stack: Stack) -> None:
    tests = {"assert_case": ["assert f(1) == 2", "assert f(2) == 5"]}
    assert score(verl_sandbox, stack, FENCED.format("def f(x):\n    return x + 1"), tests)[0] == 0.5


def test_verl_sends_forty_calls_twice_and_forty_programs_run(verl_sandbox: Any, stack: Stack) -> None:
    code = f"{DOUBLE}  # {uuid.uuid4().hex}"
    tests = {"inputs": [f"{n}\n" for n in range(40)], "outputs": [f"{2 * n}\n" for n in range(40)]}
    before = executed(stack)
    assert score(verl_sandbox, stack, FENCED.format(code), tests)[0] == 1.0
    assert executed(stack) == before + 40
    assert score(verl_sandbox, stack, FENCED.format(code), tests)[0] == 1.0
    assert executed(stack) == before + 40


# --- ROLL, and anybody who says the same thing twice -----------------------------------------------------------------


def test_roll_s_fields_and_languages_are_taken(http: httpx.Client, fits: Any) -> None:
    body = {
        "compile_timeout": 30,
        "run_timeout": 30,
        "code": "print(input())",
        "language": "python3",
        "stdin": "x",
        "expected_stdout": "x",
        "some_new_field": {},
    }
    answer = http.post("/run_code", json=body).json()
    fits("RunCodeResponse", answer)
    assert answer["run_result"]["stdout"] == "x\n"


def test_the_same_call_at_once_is_one_execution(stack: Stack, http: httpx.Client) -> None:
    body = {"code": f"import time; time.sleep(0.5); print('once')  # {uuid.uuid4().hex}", "language": "python"}
    before = executed(stack)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: http.post("/run_code", json=body).json(), range(16)))
    assert {json.dumps(answer["run_result"]["stdout"]) for answer in answers} == {'"once\\n"'}
    assert executed(stack) == before + 1


def test_a_language_that_is_not_here_is_refused(http: httpx.Client) -> None:
    answer = http.post("/run_code", json={"code": "", "language": "brainfuck"})
    assert answer.status_code == 422
    assert "brainfuck" in answer.json()["detail"]


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\u0000b"'])
def test_text_that_cannot_be_written_does_no_harm(http: httpx.Client, text: str) -> None:
    body = f'{{"language": "python", "code": {text}, "stdin": {text}}}'
    answer = http.post("/run_code", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (200, "Failed")
