"""Programs and tests as open-r1, open-instruct, NeMo-Gym, Piston's clients, slime and ROLL post them."""

from __future__ import annotations

import base64
import json
import pickle
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import clients
from support.scripted import Scripted
from support.stack import Stack

FENCED = "```python\n{}\n```"
ADD = "def add(a, b):\n    return a + b"
ECHO = "print(int(input()) * 2)"

# The shape of open-r1's reward scripts: indented, starting interpreters, their value in the last line.
SCRIPT = """
    import subprocess
    import json

    def evaluate_code(code, test_cases):
        passed = 0
        for case in test_cases:
            command = ["python3", "-c", code]
            done = subprocess.run(command, input=case["input"], text=True, capture_output=True, timeout=5)
            passed += done.returncode == 0 and done.stdout.strip() == case["output"].strip()
        return passed / len(test_cases)

    code_snippet = {code}
    test_cases = json.loads({tests})

    evaluate_code(code_snippet, test_cases)
    """


def script(code: str, *cases: tuple[str, str]) -> str:
    tests = json.dumps([{"input": given, "output": wanted} for given, wanted in cases])
    return SCRIPT.format(code=json.dumps(code), tests=json.dumps(tests))


# --- open-r1 ---------------------------------------------------------------------------------------------------------


def batch(*scripts: str, **options: Any) -> dict[str, Any]:
    languages = ["python"] * len(scripts)
    return {"scripts": list(scripts), "languages": languages, "timeout": 30, "request_timeout": 28, **options}


def test_open_r1_s_scripts_have_a_value(http: httpx.Client, fits: Any) -> None:
    body = batch(script(ECHO, ("1", "2"), ("2", "5")), script("exit(1)", ("", "")), "raise ValueError('no')", "1 +")
    fits("ExecuteBatchRequest", body)
    items = http.post("/execute_batch", json=body).json()
    fits("ExecuteBatchResponse", items)
    assert [item["text"] for item in items] == ["0.5", "0.0", None, None]
    assert [item["execution"]["error"] and item["execution"]["error"]["name"] for item in items] == [
        None,
        None,
        "ValueError",
        "SyntaxError",
    ]


def test_e2b_s_models_read_the_items(http: httpx.Client) -> None:
    models = pytest.importorskip("e2b_code_interpreter.models")
    (item,) = http.post("/execute_batch", json=batch("    print('seen')\n    0.75")).json()
    execution = models.Execution(
        **item["execution"]
        | {
            "results": [models.Result(**result) for result in item["execution"]["results"]],
            "logs": models.Logs(**item["execution"]["logs"]),
        }
    )
    assert (execution.text, execution.logs.stdout) == ("0.75", ["seen\n"])


def test_a_script_that_ends_early_or_late_has_no_value(http: httpx.Client, fits: Any) -> None:
    items = http.post("/execute_batch", json=batch("import os; os._exit(0)", "while True: pass", timeout=2)).json()
    fits("ExecuteBatchResponse", items)
    assert [item["text"] for item in items] == [None, None]
    assert all(item["execution"]["error"]["name"] == "ScriptEnded" for item in items)


def test_a_language_that_is_no_notebook_is_null(http: httpx.Client) -> None:
    (item,) = http.post("/execute_batch", json=batch("1", languages=["javascript"])).json()
    assert (item["execution"], item["text"]) == (None, None)


# --- open-instruct ---------------------------------------------------------------------------------------------------


def test_open_instruct_s_asserts(http: httpx.Client, fits: Any) -> None:
    body = {"program": ADD, "tests": ["assert add(1, 2) == 3", "assert add(1, 2) == 4"], "max_execution_time": 1.0}
    fits("TestProgram", body)
    answer = http.post("/test_program", json=body).json()
    fits("TestProgramResponse", answer)
    assert answer["results"] == [1, 0]


def test_open_instruct_s_inputs_and_outputs_encoded_too(http: httpx.Client) -> None:
    tests = [{"input": "1\n", "output": "2\n"}, {"input": "2\n", "output": "3\n"}]
    body = {"program": ECHO, "tests": tests}
    assert http.post("/test_program_stdio", json=body).json()["results"] == [1, 0]
    encoded = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()
    assert http.post("/test_program_stdio", json=body | {"tests": encoded}).json()["results"] == [1, 0]


def test_a_pickle_that_does_something_is_refused(http: httpx.Client) -> None:
    harmful = base64.b64encode(zlib.compress(b"cos\nsystem\n(S'touch /tmp/harm'\ntR.")).decode()
    answer = http.post("/test_program", json={"program": ADD, "tests": harmful})
    assert answer.status_code == 422
    assert "os.system" in answer.json()["detail"]
    bomb = base64.b64encode(zlib.compress(bytes(80 << 20))).decode()
    assert http.post("/test_program", json={"program": ADD, "tests": bomb}).status_code == 422


# --- NeMo-Gym --------------------------------------------------------------------------------------------------------


def verify(code: str, unit_tests: Any) -> dict[str, Any]:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": FENCED.format(code), "annotations": []}],
    }
    return {
        "responses_create_params": {"input": [{"role": "user", "content": "..."}]},
        "response": {"id": "r", "object": "response", "output": [{"type": "reasoning", "summary": []}, message]},
        "verifier_metadata": {"unit_tests": unit_tests, "difficulty": "easy"},
        "more": 1,
    }


@pytest.mark.parametrize(
    ("code", "unit_tests", "reward", "result"),
    [
        (ECHO, {"inputs": ["1\n", "2\n"], "outputs": ["2\n", "4\n"], "fn_name": None}, 1.0, [True, True]),
        (ECHO, {"inputs": ["1\n", "2\n"], "outputs": ["2\n", "5\n"]}, 0.0, [True, False]),
        (ADD, {"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"}, 1.0, [True]),
        (
            f"class Solution:\n    {ADD.replace('(a', '(self, a').replace(chr(10), chr(10) + '    ')}",
            {"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"},
            1.0,
            [True],
        ),
    ],
)
def test_nemo_gym(http: httpx.Client, fits: Any, code: str, unit_tests: Any, reward: float, result: list[bool]) -> None:
    assert http.post("/seed_session", json={"a": 1}).json() == {}
    body = verify(code, unit_tests)
    answer = http.post("/verify", json=body).json()
    fits("VerifyResponse", answer)
    assert (answer["reward"], answer["result"], answer["extracted_model_code"]) == (reward, result, code + "\n")
    assert {name: answer[name] for name in body} == body
    assert answer["reward_components"] == {"tests": reward}  # NeMo-RL compares their sum with the reward
    assert (answer["pass_rate"], answer["mask_sample"]) == (sum(result) / len(result), False)


def test_nemo_gym_s_packed_tests(http: httpx.Client) -> None:
    def packed(data: bytes, **more: Any) -> dict[str, Any]:
        return verify(ADD, {"packed": base64.b64encode(zlib.compress(data)).decode(), **more})

    tests = json.dumps({"inputs": ["1\n2"], "outputs": ["3"]}).encode()
    body = packed(tests, fn_name="add")
    answer = http.post("/verify", json=body).json()
    assert (answer["reward"], answer["verifier_metadata"]) == (1.0, body["verifier_metadata"])
    assert (
        http.post("/verify", json=packed(tests, fn_name=None)).json()["reward"] == 0.0
    )  # a program that prints nothing
    for broken, words in (
        (packed(bytes(80 << 20)), "more than 67108864 bytes"),
        (packed(b"[1]"), "takes an object"),
        (packed(b"{"), "not JSON"),
        (verify(ADD, {"packed": "no"}), "not base64 of zlib"),
        (verify(ADD, {"packed": base64.b64encode(zlib.compress(tests)[:-6]).decode()}), "cut off"),
    ):
        refused = http.post("/verify", json=broken)
        assert refused.status_code == 422
        assert "verifier_metadata.unit_tests.packed: " in refused.text
        assert words in refused.text


def test_nemo_gym_s_sessions_can_be_seeded_and_closed_in_any_order(http: httpx.Client) -> None:
    named = {"resources_session_id": "s-1"}
    episode = {**named, "episode_id": "e", "task_id": "t"}
    for path in ("/close_session", "/seed_session", "/seed_session", "/close_session", "/close_session"):
        data = {"task_data": {"x": 1}} if path == "/seed_session" else {}
        assert http.post(path, json=episode | data).json() == named
    assert http.post("/seed_session").json() == {}  # of an agent's own run
    assert http.post("/seed_session", json={"resources_session_id": 1}).status_code == 422


def test_nemo_gym_masks_what_no_retry_mends_in_its_own_words(scripted: Scripted, wheels: Path) -> None:
    scripted.says("infra_error")
    body = verify(ADD, {"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"}) | {"instance_config": {"a": 1}}
    answer = httpx.post(f"{scripted.url}/verify", json=body).json()
    assert (answer["reward"], answer["mask_sample"], answer["reward_components"]) == (0.0, True, {"tests": 0.0})
    assert answer["failure_reason"] == answer["_ng_failure_judge_error"] == "by the script"
    assert answer["instance_config"] == {"a": 1, "mask_sample": True}
    kinds = clients._load("nemo_gym_failure_kinds", clients.unpacked("nemo-gym", wheels) / "nemo_gym/failure_kinds.py")
    assert kinds.is_registered(answer["failure_kind"])
    assert answer["failure_kind"] == answer["_ng_failure_class"]


def test_nemo_gym_s_metrics_leave_out_what_was_not_measured(http: httpx.Client) -> None:
    assert http.get("/reverify_mode").json() == "stateless"
    failed = {"_ng_task_index": 1, "reward": 0.0, "_ng_failure_class": "judge_failed", "mask_sample": True}
    answers = [
        {"_ng_task_index": task, "_ng_rollout_index": at, "reward": reward, "result": []}
        for task, at, reward in ((0, 0, 1.0), (0, 1, 0.0), (1, 0, 1.0))
    ]
    told = http.post("/aggregate_metrics", json={"verify_responses": [*answers, failed]}).json()
    assert told["key_metrics"] == {"mean/reward": pytest.approx(2 / 3), "masked": 1.0}
    assert [(group["_ng_task_index"], group["mean/reward"]) for group in told["group_level_metrics"]] == [
        (0, 0.5),
        (1, 1.0),
    ]
    assert told["agent_metrics"]["max/reward"] == 1.0
    nothing = {"group_level_metrics": [], "agent_metrics": {"masked": 0.0}, "key_metrics": {"masked": 0.0}}
    assert http.post("/aggregate_metrics", json={"verify_responses": []}).json() == nothing


def test_nemo_gym_without_code_or_tests(http: httpx.Client) -> None:
    body = verify("", {"inputs": [""], "outputs": [""]})
    assert http.post("/verify", json=body).json()["reward"] == 0.0
    assert http.post("/verify", json=verify(ECHO, {})).status_code == 422


# --- Piston ----------------------------------------------------------------------------------------------------------


def piston(http: httpx.Client, fits: Any, files: dict[str, str], language: str = "cf_python3", **more: Any) -> Any:
    body = {
        "language": language,
        "version": "*",
        **more,
        "files": [{"name": name, "content": content} for name, content in files.items()],
    }
    fits("PistonExecuteRequest", body)
    answer = http.post("/api/v2/execute", json=body).json()
    fits("PistonExecuteResponse", answer)
    return answer


def test_piston_runs_the_first_file(http: httpx.Client, fits: Any) -> None:
    files = {"main.py": "import sys, other\nprint(other.x, input())\nsys.exit(3)", "other.py": "x = 1"}
    run = piston(http, fits, files, "python", stdin="in")["run"]
    assert (run["code"], run["signal"], run["stdout"]) == (3, None, "1 in\n")
    run = piston(http, fits, {"main.py": "while True: pass"}, "python", run_timeout=1000)["run"]
    assert (run["code"], run["signal"]) == (None, "SIGKILL")


CONFIG = "TIME_LIMIT=2\nMEMORY_LIMIT=256\nINPUT_MODE={}"
CHECK = "import sys\nprint(int(open(sys.argv[3]).read().split()[0] == open(sys.argv[2]).read().split()[0]))"


@pytest.mark.parametrize(
    ("program", "more", "mode", "said"),
    [
        (ECHO, {}, "stdio", "1"),
        ("print(5)", {}, "stdio", "0"),
        ("print(2, 'and more')", {"checker.py": CHECK}, "stdio", "1"),
        ("print(3)", {"checker.py": CHECK}, "stdio", "0"),
        ("open('output.txt', 'w').write(str(2 * int(open('input.txt').read())))", {}, "file", "1"),
        ("raise SystemExit(1)", {}, "stdio", "0"),
    ],
)
def test_piston_grades_codeforces(
    http: httpx.Client, fits: Any, program: str, more: dict[str, str], mode: str, said: str
) -> None:
    files = {
        "main.py": program,
        **more,
        "input.txt": "1\n",
        "correct_output.txt": "2\n",
        "grader_config": CONFIG.format(mode),
    }
    answer = piston(http, fits, files, run_timeout=5000)
    assert (answer["compile"]["code"], answer["run"]["code"], answer["run"]["stdout"].strip()) == (0, 0, said)


def test_piston_compiles(http: httpx.Client, fits: Any) -> None:
    files = {"main.cpp": "int main( {", "input.txt": "", "correct_output.txt": ""}
    assert piston(http, fits, files, "c++17")["compile"]["code"] == 1
    files["main.cpp"] = "#include <iostream>\nint main() { std::cout << 1; }"
    files["correct_output.txt"] = "1"
    assert piston(http, fits, files, "c++17")["run"]["stdout"] == "1"


def test_piston_s_runtimes(http: httpx.Client) -> None:
    assert "python" in {one["language"] for one in http.get("/api/v2/runtimes").json()}
    assert (
        http.post(
            "/api/v2/execute", json={"language": "cms_ioi", "version": "*", "files": [{"content": ""}]}
        ).status_code
        == 400
    )


# --- slime -----------------------------------------------------------------------------------------------------------


def test_slime_s_reward_is_the_body(http: httpx.Client, fits: Any) -> None:
    body = {
        "prompt": [{"role": "user", "content": "Write add."}],
        "response": FENCED.format(ADD),
        "label": json.dumps(["assert add(1, 2) == 3", "assert add(0, 0) == 1"]),
    }
    fits("SlimeRequest", body)
    answer = http.post("/slime", json=body).json()
    fits("SlimeResponse", answer)
    assert answer == 0.5
    whole = http.post("/slime?shape=dict", json=body).json()
    fits("SlimeResponse", whole)
    assert (whole["score"], whole["reward_ok"], whole["pass_rate"]) == (0.5, 1.0, 0.5)


def test_slime_is_scored_by_the_model_where_the_url_asks_for_it(http: httpx.Client) -> None:
    items = [{"prompt": "Write add.", "completions": ["x"]}]
    native = http.post("/score", json={"items": items}).json()["results"][0]["completions"][0]["score"]
    answer = http.post("/slime?reward=model", json={"prompt": "Write add.", "response": "x", "label": None}).json()
    assert answer == pytest.approx(native, abs=1e-4)


def test_spoilt_tests_are_heard_of(http: httpx.Client) -> None:
    body = {"prompt": "p", "response": FENCED.format(ADD), "label": {"inputs": ["1"], "outputs": []}}
    assert http.post("/slime", json=body).status_code == 422


# --- ROLL's remote reward system -------------------------------------------------------------------------------------


def test_roll_submits_and_polls(http: httpx.Client) -> None:
    task = {
        "priority": 1,
        "project_id": "p",
        "prompt": "Write add.",
        "response": FENCED.format(ADD),
        "timeout": 60,
        "reward_info": {"test_list": ["assert add(1, 2) == 3", "assert add(1, 2) == 4"]},
    }
    submitted = http.post("/roll/submit_task", json=task).json()
    assert submitted["errcode"] == 0
    assert http.post("/roll/submit_task", json=task).json() == submitted
    poll = {"reward_request_id": submitted["reward_request_id"]}
    until = time.monotonic() + 30
    while (answer := http.request("GET", "/roll/task_result", json=poll).json())["errcode"] == 1:
        assert time.monotonic() < until
    assert (answer["errcode"], answer["reward_score"]) == (0, 0.5)
    assert http.request("GET", "/task_result", json={"reward_request_id": "0" * 32}).json()["errcode"] > 1


# --- what programs print and answer, in dialects that judge -----------------------------------------------------------


@pytest.mark.parametrize("noise", ["'x' * (1 << 20)", "''"])
def test_noise_does_not_change_a_judgement(http: httpx.Client, noise: str) -> None:
    code = f"import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')\nprint({noise})\n{ADD}"
    asserts = ["assert add(1, 2) == 3", "assert add(1, 2) == 4"]
    program = {"program": code, "tests": asserts, "max_execution_time": 5}
    assert http.post("/test_program", json=program).json()["results"] == [1, 0]
    assert http.post("/verify", json=verify(code, asserts)).json()["result"] == [True, False]
    body = {"query": [FENCED.format(code)], "prompts": [""], "labels": [asserts]}
    assert http.post("/get_reward", json=body).json()["rewards"] == [0.5]
    sample = {"prompt": "p", "response": FENCED.format(code), "label": asserts}
    assert http.post("/slime", json=sample).json() == 0.5


def test_output_that_is_no_text_is_a_wrong_answer(http: httpx.Client) -> None:
    code = "import sys\nsys.stdout.buffer.write(b'\\xff')"
    tests = [{"input": "", "output": "\ufffd"}]
    body = {"program": code, "tests": tests, "max_execution_time": 5}
    assert http.post("/test_program_stdio", json=body).json()["results"] == [0]


def test_a_client_that_hangs_up_takes_its_program_along(stack: Stack, http: httpx.Client) -> None:
    body = {"code": f"import time; time.sleep(20)  # {uuid.uuid4().hex}", "language": "python", "run_timeout": 30}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/run_code", json=body, timeout=1)
    began = time.monotonic()
    assert http.post("/run_code", json={"code": "print(1)", "language": "python"}).json()["status"] == "Success"
    assert http.get("/info").json()["queues"]["execute"]["depth"] <= 1
    assert time.monotonic() - began < 25
