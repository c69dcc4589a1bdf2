"""Every endpoint of the contract, asked over HTTP: what it computes and what its answers say."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from plaudit.tests_first import SMALLEST_STEP, unit
from service.agreement import consensus
from support.checkpoints import TEMPLATE
from support.stack import Stack, wait_for

SHARED = 'plaudit_score_tokens_total{kind="shared"}'
ADD = "def add(a, b):\n    return a + b\n"
SUB = "def add(a, b):\n    return a - b\n"
ASSERT = {"kind": "assert", "asserts": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def unique(program: str) -> str:
    """The same program, but nobody has run it before."""
    return f"{program}# {uuid.uuid4().hex}\n"


def execute(http: httpx.Client, tests: Any, *programs: str, language: str = "python", **item: Any) -> list[Any]:
    body = {"items": [{"language": language, "programs": list(programs), "tests": tests, **item}]}
    runs: list[Any] = ok(http.post("/execute", json=body))["results"][0]["programs"]
    return runs


def plain_score(folder: Path, prompt: str, completion: str) -> float:
    """One forward of Hugging Face's own classes over one text."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    text = TEMPLATE.replace("{completion}", completion).replace("{prompt}", prompt)
    with torch.no_grad():
        score: float = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits.item()
    return score


# --- POST /score -----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_plain_forward_in_the_requests_order(http: httpx.Client, tiny_model: Path) -> None:
    items = [
        {"id": "one", "prompt": "Sum.", "completions": ["return a + b", "", "é 漢字", "return a + b"]},
        {"prompt": "Product of {a}.", "completions": ["    return a * b\n"]},
    ]
    answer = ok(http.post("/score", json={"items": items}))

    for item, result in zip(items, answer["results"], strict=True):
        scores = [one["score"] for one in result["completions"]]
        expected = [plain_score(tiny_model, str(item["prompt"]), text) for text in item["completions"]]
        assert scores == pytest.approx(expected, abs=1e-4)
        assert result["best"] == scores.index(max(scores))
        assert {(one["status"], one["truncated"], one["trainable"]) for one in result["completions"]} == {
            ("ok", False, True)
        }
    assert [result["id"] for result in answer["results"]] == ["one", None]
    assert answer["status"] == "complete"
    assert answer["model"]["name"] == "default"
    assert answer["model"]["revision"].startswith("sha256:")
    assert answer["timing"]["compute_ms"] > 0


def test_a_score_does_not_depend_on_company_or_order(http: httpx.Client) -> None:
    texts = [f"x = {uuid.uuid4().hex} * {at}" for at in range(6)]

    def scores(*groups: list[str], prompt: str) -> list[float]:
        body = {"items": [{"prompt": prompt, "completions": group} for group in groups]}
        results = ok(http.post("/score", json=body))["results"]
        return [one["score"] for result in results for one in result["completions"]]

    together = scores(texts, prompt="p")
    # Another model name would be another cache; here each text is new to the cache under each on_overflow.
    body = {"on_overflow": "truncate_left", "items": [{"prompt": "p", "completions": [text]} for text in texts[::-1]]}
    alone = [result["completions"][0] for result in ok(http.post("/score", json=body))["results"]][::-1]

    assert [one["cached"] for one in alone] == [False] * 6
    assert [one["score"] for one in alone] == pytest.approx(together, abs=1e-4)


def test_a_prompt_is_computed_once_for_all_its_completions_and_the_metrics_say_so(http: httpx.Client) -> None:
    def shared() -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(SHARED))

    prompt, before = f"# {uuid.uuid4().hex}\n", shared()
    model = ok(http.get("/models"))["models"][0]
    ok(http.post("/score", json={"items": [{"prompt": prompt, "completions": [f"x = {at}" for at in range(5)]}]}))

    assert model["prefix_sharing_disabled_reason"] is None
    # The prompt is longer than ten tokens, and a worker counts after it has answered.
    wait_for(lambda: shared() - before >= 4 * 10)


def test_what_was_scored_before_is_recalled_and_says_so(http: httpx.Client) -> None:
    text = uuid.uuid4().hex

    def score(*texts: str) -> list[Any]:
        body = {"items": [{"prompt": "p", "completions": texts}]}
        completions: list[Any] = ok(http.post("/score", json=body))["results"][0]["completions"]
        return completions

    (before,) = score(text)
    wait_for(lambda: score(text)[0]["cached"])  # it is remembered a moment after the answer
    again, fresh = score(text, text + "!")
    assert (before["cached"], again["cached"], fresh["cached"]) == (False, True, False)
    assert again["score"] == before["score"]


def test_too_long_is_said_of_that_completion_alone_and_nothing_is_cut(http: httpx.Client) -> None:
    body = {"items": [{"prompt": "p", "completions": ["fits", "word " * 400]}]}
    answer = ok(http.post("/score", json=body))
    fits, long = answer["results"][0]["completions"]

    assert fits["status"] == "ok"
    assert (long["status"], long["score"], long["trainable"], long["truncated"]) == ("invalid", None, False, False)
    assert long["error"]["code"] == "too_long"
    assert "at most 256" in long["error"]["detail"]
    assert answer["results"][0]["best"] == 0


def test_truncation_on_request_is_scored_and_said(http: httpx.Client) -> None:
    body = {"on_overflow": "truncate_left", "items": [{"prompt": "word " * 400, "completions": ["x"]}]}
    (one,) = ok(http.post("/score", json=body))["results"][0]["completions"]
    assert (one["status"], one["truncated"], one["trainable"], one["tokens"]) == ("ok", True, True, 256)
    assert math.isfinite(one["score"])


def test_calibration_is_added_when_asked_for(http: httpx.Client) -> None:
    item = {"prompt": "p", "completions": [uuid.uuid4().hex]}
    plain = ok(http.post("/score", json={"items": [item]}))["results"][0]["completions"][0]
    asked = ok(http.post("/score", json={"items": [item], "calibrated": True}))["results"][0]["completions"][0]

    assert plain["pass_probability"] is None
    assert asked["pass_probability"] == pytest.approx(1 / (1 + math.exp(-(2.0 * asked["score"] - 1.0))))


def test_chat_messages_are_a_prompt(http: httpx.Client) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sum."}]
    body = {"items": [{"prompt": chat, "completions": ["x"]}, {"prompt": "Be brief.\n\nSum.", "completions": ["x"]}]}
    one, two = (result["completions"][0] for result in ok(http.post("/score", json=body))["results"])
    assert one["score"] == pytest.approx(two["score"], abs=1e-6)


def test_an_unknown_model_is_404_and_names_those_there_are(http: httpx.Client) -> None:
    response = http.post("/score", json={"model": "nobody", "items": [{"prompt": "p", "completions": ["c"]}]})
    assert response.status_code == 404
    assert response.json()["detail"] == "model 'nobody' is not served here; the models are default"


# --- POST /execute ---------------------------------------------------------------------------------------------------


def test_asserts_are_judged_one_by_one_by_the_split_judge(http: httpx.Client) -> None:
    right, wrong = execute(http, ASSERT, ADD, SUB)

    assert (right["status"], right["verdict"], right["passed"], right["total"]) == ("ok", "passed", 2, 2)
    assert (right["pass_rate"], right["trainable"], right["judge"], right["compile"]) == (1.0, True, "split", None)
    assert right["isolation"] in ("strong", "userns")
    assert (wrong["status"], wrong["verdict"], wrong["pass_rate"]) == ("ok", "wrong_answer", 0.5)
    assert wrong["trainable"] is True
    assert [test["verdict"] for test in wrong["tests"]] == ["wrong_answer", "passed"]
    assert set(right["tests"][0]) >= {"verdict", "cpu_ms", "wall_ms", "peak_memory_mb", "stdout", "stderr"}


@pytest.mark.parametrize(
    ("tests", "judge"),
    [
        (ASSERT, "split"),
        ({"kind": "assert", "asserts": ["assert add(one, 2) == 3"], "setup": "one = 1", "entry_point": "add"}, "split"),
        (
            {
                "kind": "function",
                "entry_point": "add",
                "cases": [
                    {"args": [1, 2], "expected": 3},
                    {"args": [2**80], "kwargs": {"b": 1}, "expected": 2**80 + 1},
                    {"args": [0.1, 0.2], "expected": 0.3},
                ],
                "rel_tol": 1e-9,
            },
            "split",
        ),
        (
            {"kind": "check", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n", "entry_point": "add"},
            "split",
        ),
        ({"kind": "stdio", "cases": [{"stdin": "", "stdout": "hello\n"}]}, "bytes"),
    ],
    ids=["assert", "setup", "function", "check", "stdio"],
)
def test_every_kind_of_tests_tells_right_from_wrong(http: httpx.Client, tests: Any, judge: str) -> None:
    right, wrong = execute(http, tests, ADD + "if __name__ == '__main__':\n    print('hello')\n", SUB)
    assert (right["verdict"], right["judge"]) == ("passed", judge)
    assert wrong["verdict"] == "wrong_answer"
    assert wrong["pass_rate"] < 1


@pytest.mark.parametrize(
    ("compare", "stdout", "verdict"),
    [
        ("exact", "1.0 2", "wrong_answer"),
        ("rstrip", "1.0 2", "passed"),
        ("tokens", "1.0\n2", "passed"),
        ("float", "1.00000000001   2.0", "passed"),
        ("tokens", "1 2", "wrong_answer"),
    ],
)
def test_output_is_compared_as_asked(http: httpx.Client, compare: str, stdout: str, verdict: str) -> None:
    tests = {"kind": "stdio", "cases": [{"stdout": stdout}], "compare": compare}
    (one,) = execute(http, tests, "print('1.0 2')\n")
    assert one["verdict"] == verdict


def test_what_a_program_reads_and_prints_is_its_own(http: httpx.Client) -> None:
    tests = {"kind": "stdio", "cases": [{"stdin": f"{at}\n", "stdout": f"{at * at}\n"} for at in range(3)]}
    (one,) = execute(http, tests, "n = int(input())\nprint(n * n)\n")
    assert (one["verdict"], one["passed"], one["total"]) == ("passed", 3, 3)


@pytest.mark.parametrize(
    ("program", "verdict", "limits"),
    [
        ("def add(a, b):\n    while True: pass\n", "time_limit", {"cpu_s": 0.5}),
        ("def add(a, b):\n    raise KeyError('x')\n", "runtime_error", {}),
        ("def add(a, b) return\n", "compile_error", {}),
        ("def add(a, b):\n    return b'x' * (100 << 20)\n", "memory_limit", {"memory_mb": 64}),
    ],
)
def test_a_programs_misfortune_is_a_trainable_verdict(
    http: httpx.Client, program: str, verdict: str, limits: dict[str, float]
) -> None:
    (one,) = execute(http, {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}, program, limits=limits)
    assert (one["status"], one["trainable"], one["passed"]) == ("ok", True, 0)
    assert one["verdict"] == verdict
    assert one["pass_rate"] == 0.0


def test_code_is_taken_out_of_a_completion_when_asked(http: httpx.Client) -> None:
    completion = f"Sure:\r\n```python\r\n{SUB}```\nBetter:\n```python\n{ADD}```\nDone."
    fenced, bare = execute(http, ASSERT, completion, "no code at all", extract="last_fence")

    assert fenced["verdict"] == "passed"
    assert (bare["status"], bare["verdict"], bare["passed"], bare["total"]) == ("ok", "no_code", 0, 2)
    assert (bare["pass_rate"], bare["trainable"], bare["tests"]) == (0.0, True, [])


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("never", ["wrong_answer", "passed", "wrong_answer"]),
        ("first_failure", ["wrong_answer", "skipped", "skipped"]),
        ({"after": 2}, ["wrong_answer", "passed", "wrong_answer"]),
    ],
)
def test_judging_stops_where_asked_and_the_rate_divides_by_all(http: httpx.Client, stop: Any, expected: Any) -> None:
    asserts = ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(2, 2) == 4"]
    (one,) = execute(http, {"kind": "assert", "asserts": asserts}, SUB, stop=stop)
    assert [test["verdict"] for test in one["tests"]] == expected
    assert one["pass_rate"] == pytest.approx(expected.count("passed") / 3)


def test_a_stored_suite_is_named_by_its_digest(http: httpx.Client) -> None:
    body = json.dumps(ASSERT).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    unknown = http.post(
        "/execute",
        json={"items": [{"language": "python", "programs": [ADD], "tests": {"kind": "ref", "sha256": "0" * 64}}]},
    )
    assert (unknown.status_code, unknown.json()["code"]) == (404, "testset_unknown")

    stored = ok(http.put(f"/testsets/{sha256}", content=body, headers={"Content-Type": "application/json"}))
    assert (stored["sha256"], stored["tests"]) == (sha256, 2)
    right, wrong = execute(http, {"kind": "ref", "sha256": sha256}, ADD, SUB)
    assert (right["verdict"], wrong["verdict"]) == ("passed", "wrong_answer")


def test_a_suite_is_stored_only_under_its_own_digest(http: httpx.Client) -> None:
    response = http.put(f"/testsets/{'0' * 64}", json=ASSERT)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    ref = {"kind": "ref", "sha256": "0" * 64}
    assert http.put(f"/testsets/{'0' * 64}", json=ref).status_code == 422


def test_a_finished_execution_is_recalled_but_a_timeout_is_run_again(http: httpx.Client) -> None:
    program, slow = unique(ADD), unique("def add(a, b):\n    while True: pass\n")
    one = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
    first = execute(http, one, program, slow, limits={"cpu_s": 0.2})
    second = execute(http, one, program, slow, limits={"cpu_s": 0.2})
    other_limits = execute(http, one, program, limits={"cpu_s": 0.3})

    assert [run["cached"] for run in first] == [False, False]
    assert [run["cached"] for run in second] == [True, False]
    assert [run["verdict"] for run in second] == ["passed", "time_limit"]
    assert other_limits[0]["cached"] is False


def test_results_keep_the_order_of_items_and_programs(http: httpx.Client) -> None:
    programs = [unique(ADD if at % 3 else SUB) for at in range(5)]
    programs += programs[:2]
    items = [{"id": str(at), "language": "python", "programs": programs[at:], "tests": ASSERT} for at in range(2)]
    results = ok(http.post("/execute", json={"items": items}))["results"]

    expected = ["passed" if at % 3 else "wrong_answer" for at in (0, 1, 2, 3, 4, 0, 1)]
    assert [result["id"] for result in results] == ["0", "1"]
    assert [[run["verdict"] for run in result["programs"]] for result in results] == [expected, expected[1:]]
    assert [result["best"] for result in results] == [1, 0]


def test_a_language_by_any_of_its_names_and_none_that_there_is_not(http: httpx.Client) -> None:
    (alias,) = execute(http, ASSERT, ADD, language="Python3")
    (unknown,) = execute(http, ASSERT, ADD, language="klingon")
    assert alias["verdict"] == "passed"
    assert (unknown["status"], unknown["error"]["code"]) == ("invalid", "language_unknown")
    assert (unknown["verdict"], unknown["pass_rate"], unknown["trainable"]) == (None, None, False)


def test_tests_that_are_broken_are_invalid_and_no_programs_fault(http: httpx.Client) -> None:
    (one,) = execute(http, {"kind": "assert", "asserts": ["assert ((("]}, ADD)
    assert (one["status"], one["trainable"], one["pass_rate"]) == ("invalid", False, None)
    assert one["error"]["code"] == "invalid_tests"


# --- POST /reward and /rank ------------------------------------------------------------------------------------------


def test_a_reward_joins_its_terms_and_tells_about_the_group(http: httpx.Client) -> None:
    item = {"id": "p1", "prompt": "Add.", "completions": [ADD, SUB], "tests": ASSERT}
    answer = ok(http.post("/reward", json={"items": [item]}))
    (result,) = answer["results"]
    scores = ok(http.post("/score", json={"items": [{"prompt": "Add.", "completions": [ADD, SUB]}]}))
    logits = [one["score"] for one in scores["results"][0]["completions"]]

    expected = [rate + unit(logit) / SMALLEST_STEP for rate, logit in zip([1.0, 0.5], logits, strict=True)]
    rewards = [one["reward"] for one in result["completions"]]
    assert rewards == pytest.approx(expected)
    for one in result["completions"]:
        assert one["reward"] == sum(part["contribution"] for part in one["components"].values())
        assert (one["status"], one["trainable"]) == ("ok", True)
    mean = sum(expected) / 2
    assert result["group"] == {
        "n": 2,
        "n_ok": 2,
        "mean": pytest.approx(mean),
        "std": pytest.approx(abs(expected[0] - mean)),
        "degenerate": False,
        "best": 0,
        "margin": pytest.approx(expected[0] - expected[1]),
    }
    assert answer["models"] == [scores["model"]]
    assert (answer["status"], result["id"]) == ("complete", "p1")


def test_terms_that_need_no_tests_and_those_that_do(http: httpx.Client) -> None:
    texts = [f"```python\n{ADD}```", f"```python\n{ADD}```\n", "I do not know."]
    terms = [
        {"name": "format", "type": "format"},
        {"name": "same", "type": "consensus"},
        {"name": "agree", "type": "agreement"},
        {"name": "all", "type": "execute", "policy": "all_or_nothing"},
        {"name": "z", "type": "score", "transform": "zscore_in_group"},
    ]
    item = {"prompt": "Add.", "completions": texts, "tests": ASSERT, "extract": "last_fence"}
    (result,) = ok(http.post("/reward", json={"spec": {"terms": terms}, "items": [item]}))["results"]

    def values(term: str) -> list[float]:
        return [one["components"][term]["value"] for one in result["completions"]]

    assert values("format") == [1.0, 1.0, 0.0]
    assert values("same") == pytest.approx(consensus(texts))
    assert values("agree") == pytest.approx([2 * 2 / 6, 2 * 2 / 6, 0.0])
    assert values("all") == [1.0, 1.0, 0.0]
    assert sum(values("z")) == pytest.approx(0.0, abs=1e-6)
    assert result["completions"][2]["components"]["all"]["verdict"] == "no_code"


def test_a_term_without_a_value_is_null_and_never_0(http: httpx.Client) -> None:
    item = {"prompt": "p", "completions": ["fits", "word " * 400], "tests": ASSERT}
    spec = {"terms": [{"name": "rm", "type": "score"}, {"name": "format", "type": "format", "require": "non_empty"}]}
    null = ok(http.post("/reward", json={"spec": spec, "items": [item]}))["results"][0]
    drop = ok(http.post("/reward", json={"spec": spec | {"on_missing": "drop"}, "items": [item]}))["results"][0]

    assert (null["completions"][1]["status"], null["completions"][1]["reward"]) == ("invalid", None)
    assert (null["group"]["n"], null["group"]["n_ok"], null["group"]["degenerate"]) == (2, 1, True)
    assert (drop["completions"][1]["status"], drop["completions"][1]["reward"]) == ("ok", 1.0)
    assert drop["completions"][1]["trainable"] is False
    assert drop["completions"][1]["components"]["rm"]["error"]["code"] == "too_long"


def test_a_gate_and_a_clip(http: httpx.Client) -> None:
    spec = {
        "terms": [{"name": "tests", "type": "execute"}, {"name": "code", "type": "format", "require": "non_empty"}],
        "combine": "gated",
        "gate": {"term": "tests", "min": 1.0},
        "clip": {"min": -1, "max": 1.5},
    }
    item = {"prompt": "p", "completions": [ADD, SUB], "tests": ASSERT}
    (result,) = ok(http.post("/reward", json={"spec": spec, "items": [item]}))["results"]
    assert [one["reward"] for one in result["completions"]] == [1.5, 0.0]


def test_rank_adds_the_order(http: httpx.Client) -> None:
    spec = {"terms": [{"name": "tests", "type": "execute"}]}
    completions = [SUB, ADD, "no program", ADD + "\n"]
    (result,) = ok(
        http.post("/rank", json={"spec": spec, "items": [{"prompt": "p", "completions": completions, "tests": ASSERT}]})
    )["results"]
    assert result["order"] == [1, 3, 0, 2]
    assert result["group"]["best"] == 1


def test_early_stop_takes_back_what_has_not_begun_and_spares_other_items(http: httpx.Client) -> None:
    spec = {"terms": [{"name": "tests", "type": "execute"}]}
    good, slow = unique(ADD), [unique("import time\ndef add(a, b):\n    time.sleep(0.4)\n") for _ in range(8)]
    one = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
    items = [
        {"prompt": "p", "completions": [good, *slow], "tests": one},
        {"prompt": "q", "completions": [slow[0]], "tests": one},
    ]
    began = time.perf_counter()
    stopped, shared = ok(http.post("/rank", json={"spec": spec, "items": items, "early_stop": True}))["results"]
    elapsed = time.perf_counter() - began

    assert stopped["completions"][0]["reward"] == 1.0
    assert stopped["order"][0] == 0
    statuses = [each["status"] for each in stopped["completions"][1:]]
    assert statuses.count("cancelled") >= 6
    assert all(each["reward"] is None for each in stopped["completions"] if each["status"] == "cancelled")
    assert shared["completions"][0]["components"]["tests"]["verdict"] == "wrong_answer"
    assert elapsed < 0.4 * len(slow)


# --- later: respond-async --------------------------------------------------------------------------------------------

SLOW = "import time\ndef add(a, b):\n    time.sleep(0.3)\n    return a + b\n"
ONE = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}


def submit(http: httpx.Client, num_items: int, program: str = SLOW) -> dict[str, Any]:
    item = {"language": "python", "tests": ONE}
    items = [item | {"id": str(at), "programs": [unique(program)]} for at in range(num_items)]
    response = http.post("/execute", json={"items": items}, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    assert response.headers["location"] == response.json()["status_url"]
    assert response.headers["preference-applied"] == "respond-async"
    accepted: dict[str, Any] = response.json()
    return accepted


def test_a_long_poll_brings_only_what_is_new_and_the_end_brings_the_answer(http: httpx.Client) -> None:
    job = submit(http, 3)
    assert set(job) == {"job_id", "status_url", "events_url", "expires_at"}
    heard: list[int] = []
    cursor = None
    while True:
        query = {"wait_ms": 20_000} | ({"cursor": cursor} if cursor else {})
        status = ok(http.get(job["status_url"], params=query))
        cursor = status["cursor"]
        heard += [item["index"] for item in status["items"]]
        assert status["total"] == 3
        if status["state"] != "running":
            break

    assert sorted(heard) == [0, 1, 2]
    assert status["state"] == "done"
    assert [result["id"] for result in status["answer"]["results"]] == ["0", "1", "2"]
    assert status["answer"]["status"] == "complete"
    assert status["answer"]["request_id"] == job["job_id"]
    assert ok(http.get(job["status_url"], params={"cursor": cursor}))["items"] == []
    assert len(ok(http.get(job["status_url"]))["items"]) == 3


def test_a_status_that_does_not_wait_answers_at_once(http: httpx.Client) -> None:
    job = submit(http, 1)
    for _ in range(30):
        began = time.perf_counter()
        status = ok(http.get(job["status_url"]))
        assert time.perf_counter() - began < 0.5
    assert status["state"] in ("running", "done")


def test_events_come_as_they_happen_and_end(http: httpx.Client) -> None:
    job = submit(http, 3)
    events: list[tuple[str, Any]] = []
    with http.stream("GET", job["events_url"]) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        for block in "".join(stream.iter_text()).strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields:
                events.append((fields["event"], json.loads(fields["data"])))
                last = fields.get("id", "")

    assert [name for name, _ in events] == ["item", "item", "item", "end"]
    assert sorted(data["index"] for name, data in events[:3]) == [0, 1, 2]
    assert events[-1][1]["state"] == "done"
    with http.stream("GET", job["events_url"], headers={"Last-Event-ID": last}) as stream:
        assert "event: item" not in stream.read().decode()


def test_deleting_a_job_cancels_it(http: httpx.Client, stack: Stack) -> None:
    job = submit(http, 12, program=SLOW.replace("0.3", "1.5"))
    cancelled = ok(http.delete(job["status_url"]))
    assert cancelled["state"] == "cancelled"
    began = time.monotonic()
    while ok(http.get("/info"))["queues"]["execute"]["depth"] > 1:
        assert time.monotonic() - began < 4, "the work of a cancelled job is still queued"
        time.sleep(0.1)
    assert ok(http.get(job["status_url"]))["state"] == "cancelled"


def test_unknown_jobs_and_wrong_cursors(http: httpx.Client) -> None:
    for method in ("GET", "DELETE"):
        assert http.request(method, f"/jobs/{'0' * 32}").status_code == 404
    assert http.get(f"/jobs/{'0' * 32}/events").status_code == 404
    assert http.get("/jobs/nothing").status_code == 422
    for cursor in ("later", "٣-٣", "1-", "9" * 5000 + "-0"):
        assert http.get(f"/jobs/{'0' * 32}", params={"cursor": cursor}).status_code == 422


# --- the rest --------------------------------------------------------------------------------------------------------


def test_models_languages_and_info(http: httpx.Client) -> None:
    (model,) = ok(http.get("/models"))["models"]
    assert (model["name"], model["dtype"], model["max_length"]) == ("default", "float32", 256)
    assert model["calibrated"] is True
    languages = {one["name"]: one for one in ok(http.get("/languages"))["languages"]}
    assert re.match(r"3\.\d+", languages["python"]["version"])
    assert {"assert", "function", "check", "stdio"} <= set(languages["python"]["kinds"])
    info = ok(http.get("/info"))
    assert info["models"] == [model]
    assert info["workers"] == {"score": 1, "execute": 1}
    assert set(info["queues"]) == {"execute", "score:default"}
    assert info["queues"]["execute"]["max_depth"] == 16384
    assert info["limits"]["max_items"] == 256
    assert info["isolation"] in ("strong", "userns")


def test_health_ready_and_metrics(http: httpx.Client) -> None:
    assert ok(http.get("/health")) == {"status": "ok"}
    assert ok(http.get("/ready")) == {"ready": True, "broker": True, "scorers": 1, "executors": 1, "reasons": []}
    response = http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for name in ("plaudit_http_requests_total", "plaudit_jobs_total", "plaudit_queue_depth", "plaudit_workers"):
        assert f"# TYPE {name}" in response.text


def test_pages_for_people(http: httpx.Client) -> None:
    for path in ("/", "/docs"):
        response = http.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")
    assert "plaudit" in http.get("/").text
    assert http.get("/openapi.json").json()["info"]["title"] == "plaudit"
