"""A judge behind the same contract as every other model, over HTTP."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.broker import Broker
from support.judges import COMPARE, PAIRWISE, grade_by_length, judge, prefer_longer
from support.openai_server import OpenAIServer
from support.stack import Process, Stack, wait_for

PROMPT, COMPLETIONS = "Write add.", ["a + b", "ab", "sum", "ab"]


def answers(body: dict[str, Any]) -> list[str]:
    """One server for both judges; an answer to `mute` says nothing."""
    asked = body["messages"][-1]["content"]
    if "[A] " in asked:
        return prefer_longer(body)
    return ["…"] if "Answer: mute\n" in asked else grade_by_length(body)


class Judges(Stack):
    """`grades` gives numbers, `pairs` compares."""

    def start_scorer(self, *flags: str) -> Process:
        models = [f"{name}={self.model / name}" for name in ("grades", "pairs")]
        return self._start("score", ["worker", "score", "--model", *models, *flags])


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=answers) as one:
        yield one


@pytest.fixture(scope="module")
def stack(server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("judges")
    for name in ("grades", "pairs"):
        (folder / name).mkdir()
    judge(folder / "grades", server.url)
    judge(folder / "pairs", server.url, messages=COMPARE, method=PAIRWISE)
    with Broker() as broker, Judges(broker, folder, executors=0) as one:
        with one.client() as http:
            wait_for(lambda: len(http.get("/models").json()["models"]) == 2, 60, "both judges")
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


def scored(http: httpx.Client, model: str, completions: list[str], prompt: Any = PROMPT, **more: Any) -> Any:
    body = {"model": model, "items": [{"prompt": prompt, "completions": completions}], **more}
    answer = http.post("/score", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]["completions"]


def test_the_contract_is_the_same(http: httpx.Client, server: OpenAIServer) -> None:
    first = scored(http, "grades", COMPLETIONS)
    assert [one["score"] for one in first] == [5.0, 2.0, 3.0, 2.0]
    assert all(one["status"] == "ok" and one["trainable"] and one["tokens"] > 0 for one in first)

    def costs_nothing() -> bool:
        num_asked = len(server.requests)
        again = scored(http, "grades", COMPLETIONS)
        assert [one["score"] for one in again] == [5.0, 2.0, 3.0, 2.0]
        return all(one["cached"] for one in again) and len(server.requests) == num_asked

    wait_for(costs_nothing, what="answers that are kept, and not paid for again")
    models = {model["name"]: model for model in http.get("/models").json()["models"]}
    assert models["grades"]["architecture"] == "judge m"
    assert models["grades"]["revision"].startswith("sha256:")


def test_an_answer_that_cannot_be_read_has_no_score_and_takes_nobody_with_it(http: httpx.Client) -> None:
    good, mute = scored(http, "grades", ["four", "mute"])
    assert (good["status"], good["score"]) == ("ok", 4.0)
    assert (mute["status"], mute["score"], mute["trainable"]) == ("invalid", None, False)
    assert mute["error"]["code"] == "judge_unreadable"
    spec = {"terms": [{"name": "judge", "type": "score", "model": "grades"}]}
    items = [{"prompt": PROMPT, "completions": ["four", "mute"]}]
    rewards = http.post("/reward", json={"spec": spec, "items": items}).json()["results"][0]["completions"]
    assert [one["reward"] for one in rewards] == [4.0, None]


def test_a_server_that_is_away_is_a_server_error(http: httpx.Client, server: OpenAIServer) -> None:
    server.faults = [(500, {})] * 3
    (one,) = scored(http, "grades", ["while away"])
    assert (one["status"], one["score"], one["error"]["code"]) == ("infra_error", None, "judge_unavailable")
    assert one["error"]["retryable"]
    (one,) = scored(http, "grades", ["while away"])
    assert (one["status"], one["score"]) == ("ok", 10.0)


def test_a_pairwise_score_is_of_its_group(http: httpx.Client) -> None:
    assert [one["score"] for one in scored(http, "pairs", COMPLETIONS)] == [1.0, 0.0, 0.5, 0.0]
    others = scored(http, "pairs", ["ab", "a", ""])
    assert [one["score"] for one in others] == [1.0, 0.5, 0.0], "not the score that `ab` had among others"
    assert not any(one["cached"] for one in others)
    (alone,) = scored(http, "pairs", ["ab"])
    assert (alone["status"], alone["score"]) == ("invalid", None)
    assert "compares 2 to 16" in alone["error"]["detail"]


def test_a_judge_ranks_and_reranks(http: httpx.Client) -> None:
    body = {"model": "grades", "query": PROMPT, "documents": ["ab", "a + b"]}
    best, second = http.post("/v2/rerank", json=body).json()["results"]
    assert (best["index"], second["index"]) == (1, 0)
    assert best["relevance_score"] == pytest.approx(1 / (1 + math.exp(-5)))
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "a + b"}]
    told = http.post("/classify", json={"model": "grades", "messages": messages, "use_activation": False}).json()
    assert told["data"][0]["probs"] == [5.0]
    spec = {"terms": [{"name": "judge", "type": "score", "model": "pairs"}]}
    items = [{"messages": messages[:1], "completions": ["a", "abc", "ab"]}]
    assert http.post("/rank", json={"spec": spec, "items": items}).json()["results"][0]["order"] == [1, 2, 0]


@pytest.mark.parametrize(
    "body",
    [
        {"input": "a whole text"},
        {"input": [1, 2]},
        {"messages": [{"role": "user", "content": "x"}], "truncate_prompt_tokens": 10},
    ],
)
def test_what_a_judge_cannot_take_is_the_client_s_error(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post("/classify", json={"model": "grades", **body}).status_code == 422


def test_its_cost_is_on_the_metrics_page(stack: Stack, http: httpx.Client) -> None:
    before = stack.metric('plaudit_judge_requests_total{model="grades",outcome="ok"}')
    scored(http, "grades", ["never asked before"])
    wait_for(lambda: stack.metric('plaudit_judge_requests_total{model="grades",outcome="ok"}') == before + 1)
    assert stack.metric('plaudit_judge_tokens_total{kind="prompt",model="grades"}') > 0
