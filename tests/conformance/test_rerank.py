"""Rerankers: Cohere's own package, and the shapes of Jina, Infinity, vLLM and text-embeddings-inference."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from plaudit.errors import Overloaded
from support.scripted import Scripted
from support.stack import Stack

QUERY, DOCUMENTS = "Write add.", ["def add(a, b): return a + b", "no", "def add(): ..."]


@pytest.fixture(scope="module")
def scores(stack: Stack) -> list[float]:
    """By the native contract."""
    with stack.client() as http:
        items = [{"prompt": QUERY, "completions": DOCUMENTS}]
        answer = http.post("/score", json={"items": items}).json()
    return [one["score"] for one in answer["results"][0]["completions"]]


def order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda at: -scores[at])


def test_cohere_s_package(stack: Stack, scores: list[float]) -> None:
    cohere = pytest.importorskip("cohere")
    with httpx.Client(trust_env=False) as http:
        client = cohere.ClientV2("key", base_url=stack.url, httpx_client=http)
        answer = client.rerank(model="default", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert [one.index for one in answer.results] == order(scores)[:2]
    assert all(0 <= one.relevance_score <= 1 for one in answer.results)
    assert answer.meta.api_version.version == "2"


def test_cohere_s_package_comes_back_after_overload(scripted: Scripted) -> None:
    cohere = pytest.importorskip("cohere")
    service = scripted.says(Overloaded("full", retry_after_s=1.0), "ok")
    with httpx.Client(trust_env=False) as http:
        client = cohere.ClientV2("key", base_url=scripted.url, httpx_client=http)
        answer = client.rerank(model="m", query="q", documents=["d"])
    assert (len(answer.results), len(service.calls)) == (1, 2)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_documents(http: httpx.Client, fits: Any, scores: list[float], path: str) -> None:
    body = {
        "model": "m",
        "query": QUERY,
        "documents": [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]],
        "top_n": 0,
        "return_documents": True,
    }
    fits("RerankRequest", body)
    answer = http.post(path, json=body).json()
    fits("RerankResponse", answer)
    assert [one["index"] for one in answer["results"]] == order(scores)
    assert [one["document"]["text"] for one in answer["results"]] == [DOCUMENTS[at] for at in order(scores)]
    assert answer["usage"]["total_tokens"] > 0


def test_raw_scores(http: httpx.Client, scores: list[float]) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "raw_scores": True}
    results = http.post("/rerank", json=body).json()["results"]
    assert {one["index"]: one["relevance_score"] for one in results} == {
        at: pytest.approx(score, abs=1e-4) for at, score in enumerate(scores)
    }


def test_texts(http: httpx.Client, fits: Any, scores: list[float]) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "return_text": True}
    fits("TeiRerankRequest", body)
    answer = http.post("/rerank", json=body).json()
    fits("TeiRerankResponse", answer)
    assert [(one["index"], one["text"]) for one in answer] == [(at, DOCUMENTS[at]) for at in order(scores)]
    long = {"query": QUERY, "texts": ["word " * 1000]}
    assert http.post("/rerank", json=long).status_code == 422
    assert http.post("/rerank", json=long | {"truncate": True}).status_code == 200


def test_a_cut_is_told(http: httpx.Client) -> None:
    answer = http.post("/v2/rerank", json={"query": QUERY, "documents": ["word " * 1000]}).json()
    assert "lost their end" in answer["meta"]["warnings"][0]


def test_nothing_to_rank(http: httpx.Client) -> None:
    assert http.post("/rerank", json={"query": QUERY, "documents": []}).json()["results"] == []
    assert http.post("/rerank", json={"query": QUERY}).status_code == 422
