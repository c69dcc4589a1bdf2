"""Fields of vLLM's, SGLang's, Infinity's, TEI's and Cohere's scoring requests, against Hugging Face's own forward."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from support import chat_templates
from support.broker import Broker
from support.checkpoints import write_family
from support.rerankers import cross_encoder
from support.stack import Process, Stack, wait_for

LONG = " ".join(["filler about nothing in particular"] * 40)
QUERY = "what is two"
Logit = Callable[..., float]


class TwoModels(Stack):
    """A cross-encoder `bert` and a decoder `chat`, whose template writes tool calls."""

    def start_scorer(self, *flags: str) -> Process:
        argv = ["worker", "score", "--model", f"bert={self.model / 'bert'}", f"chat={self.model / 'chat'}", *flags]
        return self._start("score", argv)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "bert").mkdir()
    (folder / "chat").mkdir()
    cross_encoder(folder / "bert")
    write_family(folder / "chat", "llama")
    (folder / "chat" / "chat_template.jinja").write_text(chat_templates.TOOLS)
    return folder


@pytest.fixture(scope="module")
def two(models: Path) -> Iterator[Stack]:
    with Broker() as broker, TwoModels(broker, models, executors=0) as one:
        with one.client() as http:
            wait_for(lambda: len(http.get("/models").json()["models"]) == 2, 60, "both models")
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def http(two: Stack) -> Iterator[httpx.Client]:
    with two.client() as client:
        yield client


@pytest.fixture(scope="module")
def pair(models: Path) -> Logit:
    """Hugging Face's logit of a pair, cut by its own tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "bert")
    model = AutoModelForSequenceClassification.from_pretrained(models / "bert").eval()

    def logit(query: str, document: str, max_length: int = 64, side: str = "right") -> float:
        tokenizer.truncation_side = side
        given = tokenizer(query, document, truncation="only_second", max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            return float(model(**given).logits.item())

    return logit


@pytest.fixture(scope="module")
def chat(models: Path) -> tuple[Any, Logit]:
    """Hugging Face's tokenizer of the decoder, and its logit of token ids."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(models / "chat").eval()

    def logit(ids: list[int]) -> float:
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids])).logits.item())

    return AutoTokenizer.from_pretrained(models / "chat"), logit


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# --- query and document ----------------------------------------------------------------------------------------------

RERANKS = ["/rerank", "/v1/rerank", "/v2/rerank"]


def relevance(http: httpx.Client, path: str, **body: Any) -> tuple[float, dict[str, Any], Any]:
    """The first document's raw score, its row, and the whole answer."""
    answer = http.post(path, json={"model": "bert", "query": QUERY, "raw_scores": True} | body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    row = next(row for row in (told if isinstance(told, list) else told["results"]) if row["index"] == 0)
    return row.get("relevance_score", row.get("score")), row, told


@pytest.mark.parametrize("path", RERANKS)
@pytest.mark.parametrize("query", [QUERY, "how do i boil an egg"])
def test_a_long_document_is_cut_and_the_query_stays(http: httpx.Client, pair: Logit, path: str, query: str) -> None:
    score, row, told = relevance(http, path, query=query, documents=[LONG, "short"])
    assert score == pytest.approx(pair(query, LONG), abs=1e-4)
    assert row["truncated"] is True
    assert "1 of 2 documents" in told["meta"]["warnings"][0]
    assert "lost their end" in told["meta"]["warnings"][0]
    assert "truncated" not in next(row for row in told["results"] if row["index"] == 1)


@pytest.mark.parametrize("direction", [None, "right", "Right", "left", "Left"])
def test_tei_cuts_the_end_that_it_is_told(http: httpx.Client, pair: Logit, direction: str | None) -> None:
    given = {} if direction is None else {"truncation_direction": direction}
    score, row, _ = relevance(http, "/rerank", texts=[LONG], truncate=True, **given)
    assert score == pytest.approx(pair(QUERY, LONG, side=(direction or "right").lower()), abs=1e-4)
    assert row["truncated"] is True


@pytest.mark.parametrize("path", RERANKS)
@pytest.mark.parametrize("field", ["truncate", "truncation"])
def test_who_wants_nothing_cut_gets_an_error(http: httpx.Client, path: str, field: str) -> None:
    answer = http.post(path, json={"model": "bert", "query": QUERY, "documents": [LONG], field: False})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "too_long" in answer.json()["detail"]


@pytest.mark.parametrize("path", RERANKS)
@pytest.mark.parametrize("side", ["left", "right", None])
@pytest.mark.parametrize("k", [20, 64, -1])
def test_vllm_s_fields_cut_a_pair(http: httpx.Client, pair: Logit, path: str, side: str | None, k: int) -> None:
    given = {"truncate_prompt_tokens": k} | ({} if side is None else {"truncation_side": side})
    expected = pair(QUERY, LONG, 64 if k == -1 else k, side or "right")
    score, row, told = relevance(http, path, documents=[LONG], **given)
    assert score == pytest.approx(expected, abs=1e-4)
    assert (row["truncated"], told["usage"]["prompt_tokens"]) == (True, 64 if k == -1 else k)
    body = {"model": "bert", "text_1": QUERY, "text_2": [LONG], "use_activation": False, **given}
    for score_path in ("/score", "/v1/score"):
        (data,) = http.post(score_path, json=body).json()["data"]
        assert data["score"] == pytest.approx(expected, abs=1e-4)
        assert data["truncated"] is True


@pytest.mark.parametrize("path", [*RERANKS, "/score", "/v1/score"])
@pytest.mark.parametrize("count", [1, 5, 17])
def test_documents_of_so_many_tokens(http: httpx.Client, pair: Logit, chat: Any, path: str, count: int) -> None:
    rerank = path.endswith("rerank")
    texts = {"query": QUERY, "documents": [LONG]} if rerank else {"text_1": QUERY, "text_2": [LONG]}
    body = {"model": "bert", "max_tokens_per_doc": count, "use_activation": False, **texts}
    told = http.post(path, json=body).json()
    row = told["results"][0] if rerank else told["data"][0]
    query_tokens = len(QUERY.replace(" ", ""))  # a letter is a token here
    expected = pair(QUERY, LONG, query_tokens + 3 + count)
    assert row["relevance_score" if rerank else "score"] == pytest.approx(expected, abs=1e-4)
    assert row["truncated"] is True


def test_a_query_of_so_many_tokens(http: httpx.Client, pair: Logit) -> None:
    score, row, _ = relevance(http, "/rerank", documents=["an egg"], max_tokens_per_query=6)
    assert score == pytest.approx(pair("what is", "an egg"), abs=1e-4)
    assert row["truncated"] is True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truncate_prompt_tokens", 65),
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", -2),
        ("truncation_side", "middle"),
        ("truncation_direction", "up"),
        ("max_tokens_per_doc", -1),
        ("max_tokens_per_query", -1),
        ("top_n", -1),
    ],
)
@pytest.mark.parametrize("path", RERANKS)
def test_a_value_that_no_server_takes_is_named(http: httpx.Client, path: str, field: str, value: Any) -> None:
    answer = http.post(path, json={"model": "bert", "query": "q", "documents": ["a", "b"], field: value})
    assert answer.status_code == 422
    assert field in answer.json()["detail"]


def test_a_query_without_room_is_the_client_s_error(http: httpx.Client) -> None:
    answer = http.post("/rerank", json={"model": "bert", "query": LONG, "documents": ["a"]})
    assert answer.status_code == 422
    assert "the prompt (or query) alone has" in answer.json()["detail"]


@pytest.mark.parametrize(("top_n", "num"), [(0, 3), (1, 1), (2, 2), (3, 3), (9, 3), (None, 3)])
def test_top_n(http: httpx.Client, top_n: int | None, num: int) -> None:
    body = {"model": "bert", "query": "q", "documents": ["a", "b", "c"], "top_n": top_n}
    assert len(http.post("/v1/rerank", json=body).json()["results"]) == num


@pytest.mark.parametrize("given", [{"use_activation": False}, {"activation": False}, {"raw_scores": True}])
def test_raw_relevance(http: httpx.Client, pair: Logit, given: dict[str, Any]) -> None:
    body = {"model": "bert", "query": QUERY, "documents": ["an egg"], **given}
    (row,) = http.post("/v1/rerank", json=body).json()["results"]
    assert row["relevance_score"] == pytest.approx(pair(QUERY, "an egg"), abs=1e-4)


# --- whole texts and conversations -----------------------------------------------------------------------------------

TEXT = "<s><|user|>\none two three four five six seven<|end|>\n<|assistant|>\n28<|end|>\n"
POOLS: dict[str, Callable[[Any], float]] = {
    "/classify": lambda row: float(row["probs"][0]),
    "/v1/classify": lambda row: float(row["probs"][0]),
    "/pooling": lambda row: float(row["data"][0]),
    "/v1/pooling": lambda row: float(row["data"][0]),
    "/v1/embeddings": lambda row: float(row["embedding"][0]),
}


def pooled(http: httpx.Client, path: str, **body: Any) -> tuple[list[float], Any]:
    raw = {} if path == "/v1/embeddings" else {"use_activation": False}
    answer = http.post(path, json={"model": "chat", **raw, **body})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return [POOLS[path](row) for row in told["data"]], told


@pytest.mark.parametrize("path", POOLS)
@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_a_text_keeps_k_tokens(http: httpx.Client, chat: Any, path: str, side: str | None, k: int) -> None:
    tokenizer, logit = chat
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    given = {} if side is None else {"truncation_side": side}
    (score,), told = pooled(http, path, input=TEXT, truncate_prompt_tokens=k, **given)
    assert score == pytest.approx(logit(ids[:k] if side == "right" else ids[-k:]), abs=1e-4)
    assert (told["usage"]["prompt_tokens"], told["data"][0]["truncated"]) == (k, True)


@pytest.mark.parametrize("path", POOLS)
def test_minus_one_is_the_model_s_limit(http: httpx.Client, chat: Any, path: str) -> None:
    tokenizer, logit = chat
    text = "<s>" + LONG * 3
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 256
    (score,), told = pooled(http, path, input=text, truncate_prompt_tokens=-1)
    assert (score, told["usage"]["prompt_tokens"]) == (pytest.approx(logit(ids[-256:]), abs=1e-4), 256)
    for k in (257, 5000):
        answer = http.post(path, json={"model": "chat", "input": text, "truncate_prompt_tokens": k})
        assert answer.status_code == 422
        assert "256" in answer.json()["detail"]
    assert http.post(path, json={"model": "chat", "input": text}).status_code == 422


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}


def agent(arguments: Any) -> list[dict[str, Any]]:
    return [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is 1 + 2?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call(arguments)], "refusal": None, "audio": None},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
        {"role": "assistant", "content": "3"},
    ]


def rendered(tokenizer: Any, conversation: list[dict[str, Any]]) -> list[int]:
    """As Hugging Face writes it, with arguments as objects and texts in place of their parts."""
    import json

    turns: list[dict[str, Any]] = []
    for turn in conversation:
        calls = [
            {"type": "function", "function": one["function"] | {"arguments": json.loads(one["function"]["arguments"])}}
            for one in turn.get("tool_calls") or []
        ]
        content = turn.get("content")
        text = "".join(part["text"] for part in content) if isinstance(content, list) else content
        turns.append({"role": turn["role"], "content": text} | ({"tool_calls": calls} if calls else {}))
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("path", POOLS)
@pytest.mark.parametrize("length", [5, 3], ids=["answered", "calling"])
def test_tool_calls_are_scored(http: httpx.Client, chat: Any, path: str, length: int) -> None:
    tokenizer, logit = chat
    scores = []
    for arguments in ('{"a": 1, "b": 2}', '{"a": 9, "b": 123456789012345678901234567890}'):
        conversation = agent(arguments)[:length]
        (score,), _ = pooled(http, path, messages=conversation)
        assert score == pytest.approx(logit(rendered(tokenizer, conversation)), abs=1e-4)
        scores.append(score)
    assert abs(scores[0] - scores[1]) > 1e-3


def test_tool_calls_are_scored_in_slime_and_natively(http: httpx.Client, chat: Any) -> None:
    tokenizer, logit = chat
    conversation = agent('{"a": 1, "b": 2}')
    expected = pytest.approx(logit(rendered(tokenizer, conversation)), abs=1e-4)
    *prompt, last = conversation
    body = {"prompt": prompt, "response": last["content"], "label": None}
    assert http.post("/slime?reward=model&model=chat", json=body).json() == expected
    strict = [{name: value for name, value in turn.items() if name not in ("refusal", "audio")} for turn in prompt]
    for field in ("prompt", "messages"):
        item = {field: strict, "completions": ["3", [last]]}
        answer = http.post("/score", json={"model": "chat", "items": [item]}).json()
        assert [one["score"] for one in answer["results"][0]["completions"]] == [expected, expected]
        spec = {"terms": [{"name": "rm", "type": "score", "model": "chat"}]}
        for path in ("/reward", "/rank"):
            given = {"spec": spec, "items": [{field: strict, "completions": ["3"]}]}
            answer = http.post(path, json=given).json()
            assert answer["results"][0]["completions"][0]["reward"] == expected


@pytest.mark.parametrize("path", [*POOLS, "/slime?reward=model&model=chat", "/score"])
@pytest.mark.parametrize(
    ("turn", "word"),
    [
        ({"role": "critic", "content": "x"}, "role"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "image_url"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user"}, "content"),
        ({"content": "x"}, "role"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "function_call"),
    ],
)
def test_a_turn_that_cannot_be_scored_is_named(http: httpx.Client, path: str, turn: Any, word: str) -> None:
    prompt, last = [turn], {"role": "assistant", "content": "x"}
    body = {"model": "chat", "messages": [*prompt, last]}
    if path.startswith("/slime"):
        body = {"prompt": prompt, "response": "x"}
    elif path == "/score":
        body = {"model": "chat", "items": [{"messages": prompt, "completions": ["x"]}]}
    answer = http.post(path, json=body)
    assert answer.status_code == 422
    assert word in answer.json()["detail"] + str(answer.json()["errors"]), answer.text


def test_prompt_and_messages_are_one_too_many(http: httpx.Client) -> None:
    item = {"prompt": "a", "messages": [{"role": "user", "content": "a"}], "completions": ["b"]}
    answer = http.post("/score", json={"model": "chat", "items": [item]})
    assert answer.status_code == 422
    assert "prompt and messages" in answer.json()["detail"]


# --- fields that are refused -----------------------------------------------------------------------------------------

REFUSED = [
    ("chat_template", "{{ messages }}"),
    ("chat_template_kwargs", {"enable_thinking": True}),
    ("add_generation_prompt", True),
    ("continue_final_message", True),
    ("instruction", "Judge."),
    ("tools", [{"type": "function"}]),
    ("normalize", True),
    ("padding", "max_length"),
]
HARMLESS = [
    ("chat_template", None),
    ("chat_template_kwargs", {}),
    ("add_generation_prompt", False),
    ("instruction", ""),
    ("normalize", False),
    ("user", "me"),
    ("priority", 3),
    ("cache_salt", "abc"),
]
BODIES: dict[str, dict[str, Any]] = {
    **{path: {"model": "chat", "input": TEXT} for path in POOLS},
    **{path: {"model": "bert", "query": "q", "documents": ["d"]} for path in RERANKS},
    **{path: {"model": "bert", "text_1": "q", "text_2": "d"} for path in ("/score", "/v1/score")},
    "/v1/score/evaluation": {"model": "chat", "messages": [TEXT]},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_what_would_change_a_score_is_refused_by_name(http: httpx.Client, path: str, field: str, value: Any) -> None:
    answer = http.post(path, json=BODIES[path] | {field: value})
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["detail"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("field", "value"), HARMLESS)
def test_what_changes_nothing_is_taken(http: httpx.Client, path: str, field: str, value: Any) -> None:
    assert http.post(path, json=BODIES[path] | {field: value}).status_code == 200


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v2/rerank", "max_chunks_per_doc", 10),
        ("/rerank", "overlap_tokens", 80),
        ("/v1/embeddings", "use_activation", True),
        ("/v1/embeddings", "dimensions", 8),
        ("/v1/score", "label_token_ids", [1, 2]),
        ("/v1/score", "apply_softmax", True),
        ("/pooling", "task", "token_embed"),
        ("/classify", "add_special_tokens", False),
        ("/v1/score/evaluation", "max_length", 10),
    ],
)
def test_what_one_dialect_alone_has_is_refused_there(http: httpx.Client, path: str, field: str, value: Any) -> None:
    answer = http.post(path, json=BODIES[path] | {field: value})
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["detail"]


# --- token ids, and other servers' own forms -------------------------------------------------------------------------


@pytest.mark.parametrize("path", POOLS)
def test_vllm_s_token_ids(http: httpx.Client, chat: Any, path: str) -> None:
    tokenizer, logit = chat
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    (score,), told = pooled(http, path, input=ids)
    assert (score, told["usage"]["prompt_tokens"]) == (pytest.approx(logit(ids), abs=1e-4), len(ids))
    scores, _ = pooled(http, path, input=[ids, ids[:5], [7]])
    assert scores == [pytest.approx(logit(some), abs=1e-4) for some in (ids, ids[:5], [7])]
    (score,), _ = pooled(http, path, input=ids, truncate_prompt_tokens=4)
    assert score == pytest.approx(logit(ids[-4:]), abs=1e-4)


def test_native_token_ids_need_the_right_tokenizer(http: httpx.Client, chat: Any) -> None:
    import hashlib
    import json

    tokenizer, logit = chat
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pairs = json.dumps(sorted(tokenizer.get_vocab().items()), separators=(",", ":"))
    digest = "sha256:" + hashlib.sha256(pairs.encode()).hexdigest()
    served = {model["name"]: model["tokenizer_digest"] for model in http.get("/models").json()["models"]}
    assert served["chat"] == digest != served["bert"]
    body = {"model": "chat", "items": [{"token_ids": [ids, ids[:4]]}], "tokenizer_digest": digest}
    answer = http.post("/score", json=body).json()
    assert [one["score"] for one in answer["results"][0]["completions"]] == [
        pytest.approx(logit(some), abs=1e-4) for some in (ids, ids[:4])
    ]
    for wrong in (served["bert"], None, "sha256:1"):
        refused = http.post("/score", json=body | {"tokenizer_digest": wrong})
        assert refused.status_code == 422
        assert "tokenizer_digest" in refused.json()["detail"]
    vllm = {"model": "chat", "input": ids, "tokenizer_digest": served["bert"]}
    assert "tokenizer_digest" in http.post("/classify", json=vllm).json()["detail"]
    one = http.post("/score", json=body | {"items": [{"token_ids": [[1, 99999]]}]}).json()["results"][0]
    assert (one["completions"][0]["status"], "99999" in one["completions"][0]["error"]["detail"]) == ("invalid", True)


def test_sglang_s_own_classify(http: httpx.Client, chat: Any) -> None:
    tokenizer, logit = chat
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    expected = pytest.approx(logit(ids), abs=1e-4)
    rows = http.post("/classify", json={"model": "chat", "text": [TEXT, TEXT]}).json()
    assert [row["embedding"] for row in rows] == [[expected], [expected]]
    assert rows[0]["meta_info"]["prompt_tokens"] == len(ids)
    assert http.post("/classify", json={"model": "chat", "text": TEXT}).json()["embedding"] == [expected]
    assert http.post("/classify", json={"model": "chat", "input_ids": ids}).json()["embedding"] == [expected]
    assert http.post("/classify", json={"model": "chat", "input_ids": [ids]}).json()[0]["embedding"] == [expected]
    for wrong in ({"text": []}, {"text": [""]}, {"text": [1]}, {"input_ids": ["a"]}, {"input_ids": []}):
        assert http.post("/classify", json={"model": "chat", **wrong}).status_code == 422, wrong


@pytest.mark.parametrize("raw", [True, False])
def test_infinity_s_raw_scores_of_classify(http: httpx.Client, chat: Any, raw: bool) -> None:
    tokenizer, logit = chat
    value = logit(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    told = http.post("/classify", json={"model": "chat", "input": [TEXT], "raw_scores": raw}).json()
    assert told["data"][0]["probs"] == [pytest.approx(value if raw else sigmoid(value), abs=1e-4)]
