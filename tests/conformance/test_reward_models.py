"""Reward models as verl's loop, OpenRLHF's agent, vLLM's clients and LLaMA-Factory ask for them."""

from __future__ import annotations

import math
import types
from typing import Any

import httpx
import pytest

from plaudit.errors import Overloaded, WouldMissDeadline
from support.scripted import Scripted
from support.stack import Stack

PROMPT, COMPLETION = "Write add.", "def add(a, b): return a + b"
WHOLE = f"<|prompt|>{PROMPT}<|completion|>{COMPLETION}<|end|>"  # what the tiny checkpoint's own template makes of them


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.fixture(scope="module")
def native(stack: Stack) -> float:
    """The score under the native contract, which every dialect must come to."""
    with stack.client() as http:
        items = [{"prompt": PROMPT, "completions": [COMPLETION]}]
        return float(http.post("/score", json={"items": items}).json()["results"][0]["completions"][0]["score"])


# --- verl ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
async def test_verl_s_loop_reads_the_raw_score(verl_reward_loop: Any, stack: Stack, native: float, engine: str) -> None:
    worker = verl_reward_loop(stack.url.removeprefix("http://"), engine)
    assert await worker.compute_score_disrm(WHOLE) == {"reward_score": pytest.approx(native, abs=1e-4)}


async def test_verl_s_loop_comes_back_after_overload(verl_reward_loop: Any, scripted: Scripted) -> None:
    pauses: list[float] = []
    worker = verl_reward_loop(scripted.address, "vllm", pauses)
    scripted.says(Overloaded("full"), WouldMissDeadline("late"), "ok")
    assert await worker.compute_score_disrm(WHOLE) == {"reward_score": 0.5}
    assert pauses == [1, 2]


# --- OpenRLHF --------------------------------------------------------------------------------------------------------


async def openrlhf(agent: Any, url: str, query: str, prompt: str, label: Any, reward: str = "") -> dict[str, Any]:
    """What the agent's `execute` makes of one rollout whose decoded text is `query`."""

    class Tokenizer:
        def __call__(self, **_: Any) -> dict[str, Any]:
            ids = types.SimpleNamespace(tolist=lambda: [1])
            return {"input_ids": [ids]}

        def decode(self, *_: Any, **__: Any) -> str:
            return query

    class Engine:
        async def generate(self, *_: Any, **__: Any) -> Any:
            output = types.SimpleNamespace(token_ids=[2], finish_reason="stop", logprobs=None, text="")
            return types.SimpleNamespace(outputs=[output])

    executor = agent.SingleTurnAgentExecutor(f"{url}/get_reward{reward}")
    params = types.SimpleNamespace(max_tokens=8, logprobs=None)
    output: dict[str, Any] = await executor.execute(prompt, label, params, 64, Tokenizer(), Engine())
    return output


async def test_openrlhf_scores_the_whole_query(openrlhf_agent: Any, stack: Stack, native: float) -> None:
    output = await openrlhf(openrlhf_agent, stack.url, WHOLE, PROMPT, "no tests", "?reward=model")
    assert output["reward"] == [pytest.approx(native, abs=1e-4)]
    assert output["scores"] == [pytest.approx(sigmoid(native), abs=1e-4)]
    assert set(output["extra_logs"]) == {"score", "reward_ok", "pass_rate", "rm", "tested", "truncated"}
    assert output["extra_logs"]["reward_ok"] == [1.0]


@pytest.mark.parametrize(("answer", "rate"), [("return a + b", 1.0), ("return 3", 0.5)])
async def test_openrlhf_is_judged_by_tests_in_the_label(
    openrlhf_agent: Any, stack: Stack, answer: str, rate: float
) -> None:
    prompt = "<|im_start|>user\nWrite add.<|im_end|>\n<|im_start|>assistant\n"
    query = f"{prompt}Sure.\n```python\ndef add(a, b):\n    {answer}\n```<|im_end|>"
    label = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]
    output = await openrlhf(openrlhf_agent, stack.url, query, prompt, label)
    assert (output["reward"], output["scores"], output["extra_logs"]["tested"]) == ([rate], [rate], [1.0])


def test_openrlhf_s_older_batches_and_empty_shards(http: httpx.Client, fits: Any, native: float) -> None:
    body = {"query": [WHOLE, "other"], "prompts": [PROMPT, "p"], "labels": [None, {"a": 1}]}
    answer = http.post("/get_reward?reward=model", json=body).json()
    fits("OpenRLHFResponse", answer)
    assert answer["rewards"][0] == pytest.approx(native, abs=1e-4)
    assert len(answer["rewards"]) == len(answer["extra_logs"]["rm"]) == 2
    assert http.post("/get_reward", json={"query": []}).json() == {"rewards": [], "scores": [], "extra_logs": {}}


def test_openrlhf_s_url_says_how_to_reward(http: httpx.Client) -> None:
    query = "```python\ndef f():\n    return 1\n```"
    body = {"query": [query], "prompts": [""], "labels": [{"inputs": ["", ""], "outputs": ["1", "2"], "fn_name": "f"}]}
    assert http.post("/get_reward?reward=tests", json=body).json()["rewards"] == [0.5]
    assert http.post("/get_reward?policy=all_or_nothing", json=body).json()["rewards"] == [0.0]
    model = http.post("/get_reward?reward=model", json=body).json()
    assert (model["extra_logs"]["tested"], model["extra_logs"]["reward_ok"]) == ([0.0], [1.0])
    assert http.post("/get_reward?reward=everything", json=body).status_code == 422


UNREADABLE = [None, "", [], {}, 42, "42", "garbage", [["assert f() == 1"]], {"test": ["assert f() == 1"]}, {"a": 1}]
CODE = "```python\ndef f():\n    return 1\n```"
VERIFY = {
    "responses_create_params": {},
    "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": CODE}]}]},
}


def labelled(path: str, label: Any) -> tuple[dict[str, Any], str]:
    """A request of the dialect with this label, and the field that it rides in."""
    return {
        "/get_reward": ({"query": [CODE] * 2, "prompts": [""] * 2, "labels": [["assert f() == 1"], label]}, "labels.1"),
        "/slime": ({"prompt": "p", "response": CODE, "label": label}, "label"),
        "/submit_task": ({"prompt": "p", "response": CODE, "reward_info": label}, "reward_info"),
        "/verify": (VERIFY | {"verifier_metadata": {"unit_tests": label}}, "verifier_metadata.unit_tests"),
        "/test_program": ({"program": "def f():\n    return 1\n", "tests": label}, "tests"),
        "/submit": (
            {"dataset": "d", "id": 1, "completion": CODE, "config": {"provided_data": {"id": 1, "test": label}}},
            "provided_data",
        ),
    }[path]


@pytest.mark.parametrize("path", ["/get_reward", "/slime", "/submit_task", "/verify", "/test_program", "/submit"])
@pytest.mark.parametrize("label", UNREADABLE, ids=repr)
def test_a_label_without_tests_is_an_error_that_names_its_field(http: httpx.Client, path: str, label: Any) -> None:
    body, field = labelled(path, label)
    answer = http.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
    assert answer.json()["detail"].startswith(f"{field}: "), answer.text


@pytest.mark.parametrize("path", ["/get_reward", "/slime"])
@pytest.mark.parametrize("label", UNREADABLE, ids=repr)
def test_the_model_s_score_is_there_for_who_asks_by_name(http: httpx.Client, path: str, label: Any) -> None:
    body, _ = labelled(path, label)
    answer = http.post(f"{path}?reward=model", json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("label", ["assert f() == 1", "assert f() == 1\nassert f() > 0", '["assert f() == 1"]'])
def test_a_bare_assert_is_a_test(http: httpx.Client, label: str) -> None:
    body, _ = labelled("/slime", label)
    assert http.post("/slime", json=body).json() == 1.0
    assert http.post("/slime", json=body | {"response": CODE.replace("1", "0")}).json() < 1.0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("rewrad=model", "did you mean 'reward'"),
        ("polcy=all_or_nothing", "did you mean 'policy'"),
        ("shap=dict", "did you mean 'shape'"),
        ("language=cobol", "language 'cobol' is not one of"),
        ("reward=modl", "URL parameter reward"),
        ("policy=some", "URL parameter policy"),
    ],
)
def test_a_parameter_that_cannot_be_is_an_error(http: httpx.Client, query: str, words: str) -> None:
    body, _ = labelled("/slime", ["assert f() == 1"])
    answer = http.post(f"/slime?{query}", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


# --- vLLM and SGLang -------------------------------------------------------------------------------------------------


def test_classify(http: httpx.Client, fits: Any, native: float) -> None:
    raw = http.post("/classify", json={"model": "x", "input": WHOLE, "use_activation": False}).json()
    fits("ClassifyResponse", raw)
    assert raw["data"][-1]["probs"] == [pytest.approx(native, abs=1e-4)]
    for body in ({"input": [WHOLE, WHOLE]}, {"input": WHOLE, "activation": True}, {"input": WHOLE, "softmax": True}):
        first = http.post("/v1/classify", json=body).json()["data"][0]
        assert first["probs"] == [pytest.approx(sigmoid(native), abs=1e-4)]


def test_messages_go_through_our_own_template(http: httpx.Client, native: float) -> None:
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": COMPLETION}]
    answer = http.post("/pooling", json={"messages": messages}).json()
    assert answer["data"][0]["data"] == [pytest.approx(native, abs=1e-4)]


def test_embeddings(http: httpx.Client, fits: Any, native: float) -> None:
    answer = http.post("/v1/embeddings", json={"model": "m", "input": WHOLE, "encoding_format": "float"}).json()
    fits("EmbeddingsResponse", answer)
    assert answer["data"][-1]["embedding"][-1] == pytest.approx(native, abs=1e-4)


def test_models(http: httpx.Client) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("default", 256)


ODD = [
    {"input": [1, "a"]},
    {"input": [[1], []]},
    {"input": [-1]},
    {"input": [[400]]},
    {"input": ""},
    {"input": []},
    {},
    {"messages": []},
    {"messages": [{"role": "user", "content": "x"}]},
    {"input": "x", "text": "x"},
    {"input": "x", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]},
]


@pytest.mark.parametrize("body", ODD)
def test_what_cannot_be_scored_is_the_caller_s(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post("/classify", json=body).status_code == 422


def test_a_text_that_is_too_long_is_an_error_unless_truncation_is_asked_for(http: httpx.Client) -> None:
    long = "word " * 1000
    assert http.post("/classify", json={"input": long}).status_code == 422
    assert http.post("/classify", json={"input": long, "truncate_prompt_tokens": -1}).status_code == 200


SAME = [
    {"text_1": PROMPT, "text_2": COMPLETION},
    {"queries": PROMPT, "documents": [COMPLETION]},
    {"queries": [PROMPT], "items": [COMPLETION]},
    {"data_1": PROMPT, "data_2": COMPLETION},
]


@pytest.mark.parametrize("body", SAME, ids=["text", "documents", "items", "data"])
def test_score_is_told_from_ours_by_its_keys(http: httpx.Client, fits: Any, native: float, body: Any) -> None:
    fits("VllmScoreRequest", body)
    for path in ("/score", "/v1/score"):
        answer = http.post(path, json=body | {"model": "m"}).json()
        fits("VllmScoreResponse", answer)
        assert [one["score"] for one in answer["data"]] == [pytest.approx(sigmoid(native), abs=1e-4)]
    raw = http.post("/score", json=body | {"use_activation": False}).json()
    assert raw["data"][0]["score"] == pytest.approx(native, abs=1e-4)


def test_our_own_score_stays_ours(http: httpx.Client) -> None:
    item = {"prompt": 'say "text_1" and "queries"', "completions": ["data_1"]}
    assert http.post("/score", json={"items": [item]}).json()["results"][0]["completions"][0]["status"] == "ok"
    assert http.post("/score", json={"items": [item], "wrong": 1}).status_code == 422
    broken = http.post("/score", content=b'{"text_1": ', headers={"Content-Type": "application/json"})
    assert broken.status_code in (400, 422)


# --- LLaMA-Factory ---------------------------------------------------------------------------------------------------


def test_llama_factory(http: httpx.Client, fits: Any, native: float) -> None:
    body = {"model": "model", "messages": [WHOLE, "other"]}
    fits("ScoreEvaluationRequest", body)
    answer = http.post("/v1/score/evaluation", json=body).json()
    fits("ScoreEvaluationResponse", answer)
    assert answer["scores"][0] == pytest.approx(native, abs=1e-4)
    assert len(answer["scores"]) == 2
