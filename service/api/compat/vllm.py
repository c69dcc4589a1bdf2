"""vLLM's and SGLang's reward-model endpoints: `/classify`, `/pooling`, `/v1/embeddings`, `/score`, `/v1/models`.

- `input` is a whole text, which the client wrote with the reward model's own chat template, so it is scored as it is.
  `messages` go through the checkpoint's template here.
- `use_activation: false` asks for the raw logit, as verl does. The default is what each endpoint does in vLLM: a
  sigmoid for `/classify` and `/score`, the logit elsewhere.
- verl's loop retries after 5xx only, so the retry status is 503, never 429.
- `/score` is plaudit's own route, too. `ScoreSwitch` recognises vLLM's form by its keys (`text_1`, `queries`, `data_1`)
  before routing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plaudit.errors import Invalid, TooLarge
from plaudit.schemas import CompletionScore, ScoreItem
from service.api import json_body
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, Text
from service.api.compat.chat import ChatTurn, to_messages
from service.api.compat.grading import sigmoid
from service.api.dispatch.tasks import SMALL_BYTES, in_thread
from service.api.state import state_of

DIALECT = Dialect("vllm", "verl reward model (vLLM, SGLang), vLLM and SGLang clients", deadline_s=120, retry_status=503)
Value = TypeVar("Value")
VLLM_SCORE_KEYS = ("text_1", "queries", "data_1")


class PoolingRequest(CompatRequest):
    """What `/classify`, `/pooling` and `/v1/embeddings` have in common."""

    model: str | None = None
    input: Text | FailFastList[Any] | None = None
    messages: FailFastList[ChatTurn] | None = None
    use_activation: bool | None = None
    activation: bool | None = None  # two older names of `use_activation`
    softmax: bool | None = None
    truncate_prompt_tokens: int | None = None

    def activated(self, default: bool) -> bool:
        return _first((self.use_activation, self.activation, self.softmax), default)

    def item(self) -> ScoreItem:
        """What is to be scored: an assistant's message after the others, or whole texts. Raises Invalid."""
        if self.messages:
            *prompt, last = to_messages(self.messages)
            if not prompt or last.role != "assistant":
                raise Invalid("messages: the last one must be the assistant's, after at least one other")
            return ScoreItem(prompt=prompt, completions=[last.content])
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise Invalid("input: takes a text or a list of texts, none of them empty; token ids are not taken")
        return ScoreItem(prompt="", completions=list(texts))


@DIALECT.router.post("/classify")
@DIALECT.router.post("/v1/classify")
async def classify(request: Request, body: PoolingRequest) -> JSONResponse:
    scores, model = await _pooled(request, body)
    data = [
        {"index": index, "label": "LABEL_0", "probs": [_value(score, body.activated(True))], "num_classes": 1}
        for index, score in enumerate(scores)
    ]
    return _answer(request, "classify", model, data, scores)


@DIALECT.router.post("/pooling")
@DIALECT.router.post("/v1/pooling")
async def pooling(request: Request, body: PoolingRequest) -> JSONResponse:
    scores, model = await _pooled(request, body)
    data = [
        {"index": index, "object": "pooling", "data": [_value(score, body.activated(False))]}
        for index, score in enumerate(scores)
    ]
    return _answer(request, "pool", model, data, scores)


@DIALECT.router.post("/v1/embeddings")
async def embeddings(request: Request, body: PoolingRequest) -> JSONResponse:
    scores, model = await _pooled(request, body)
    data = [
        {"index": index, "object": "embedding", "embedding": [_value(score, False)]}
        for index, score in enumerate(scores)
    ]
    return _answer(request, "embd", model, data, scores)


@DIALECT.router.get("/v1/models")
async def models(request: Request) -> JSONResponse:
    data: list[Any] = [
        {
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": "plaudit",
            "root": model.revision,
            "parent": None,
            "max_model_len": model.max_length,
            "permission": [],
        }
        for model in state_of(request).fleet.models.values()
    ]
    return JSONResponse({"object": "list", "data": data})


# --- /score ----------------------------------------------------------------------------------------------------------


class ScorePairsRequest(CompatRequest):
    """One query and its texts, or as many queries as texts."""

    model: str | None = None
    text_1: Any = None
    text_2: Any = None
    queries: Any = None
    documents: Any = None
    items: Any = None
    data_1: Any = None
    data_2: Any = None
    use_activation: bool | None = None
    activation: bool | None = None
    truncate_prompt_tokens: int | None = None

    def score_items(self) -> list[ScoreItem]:
        """One item per pair. Raises Invalid."""
        queries = _texts(_first((self.text_1, self.queries, self.data_1), None))
        texts = _texts(_first((self.text_2, self.documents, self.items, self.data_2), None))
        if len(queries) == 1:
            queries = queries * len(texts)
        if len(queries) != len(texts):
            raise Invalid(f"{len(queries)} queries and {len(texts)} texts: takes one query, or one per text")
        return [ScoreItem(prompt=query, completions=[text]) for query, text in zip(queries, texts, strict=True)]


@DIALECT.router.post("/v1/score")
async def score_pairs(request: Request, body: ScorePairsRequest) -> JSONResponse:
    call = CompatCall(request, DIALECT.deadline_s)
    model, truncate = call.model_name(body.model), body.truncate_prompt_tokens is not None
    scores = await call.while_connected(call.score(model, body.score_items(), truncate=truncate))
    activated = _first((body.use_activation, body.activation), True)
    data = [
        {"index": index, "object": "score", "score": _value(score, activated)} for index, score in enumerate(scores)
    ]
    return _answer(request, "score", model, data, scores)


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Invalid("takes a text or a list of texts on both sides")
    return [text.encode("utf-8", "replace").decode() for text in texts]


class ScoreSwitch:
    """ASGI middleware: sends vLLM's form of `POST /score` to `/v1/score`, and everything else on as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/score" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        chunks: list[bytes] = []
        message: Message = {"type": "http.request", "more_body": True}
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
            chunks.append(message.get("body", b""))
        body = b"".join(chunks)
        disconnected = message["type"] == "http.disconnect"
        unread: list[Message] = [
            message if disconnected else {"type": "http.request", "body": body, "more_body": False}
        ]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        is_large = len(body) > SMALL_BYTES
        if await in_thread(_is_vllm_score, body) if is_large else _is_vllm_score(body):
            scope["path"], scope["raw_path"] = "/v1/score", b"/v1/score"
        await self.app(scope, receive_again, send)


def _is_vllm_score(body: bytes) -> bool:
    """Whether a body is vLLM's. Only one that could be is parsed."""
    if not any(f'"{key}"'.encode() in body for key in VLLM_SCORE_KEYS):
        return False
    try:
        parsed = json_body.load(body)
    except (ValueError, RecursionError, TooLarge):
        return False
    return isinstance(parsed, dict) and any(key in parsed for key in VLLM_SCORE_KEYS)


# --- shared ----------------------------------------------------------------------------------------------------------


async def _pooled(request: Request, body: PoolingRequest) -> tuple[list[CompletionScore], str]:
    """The scores and the model's name."""
    item = body.item()
    call = CompatCall(request, DIALECT.deadline_s)
    model, truncate = call.model_name(body.model), body.truncate_prompt_tokens is not None
    work = call.score(model, [item], truncate=truncate, whole_texts=not body.messages)
    return await call.while_connected(work), model


def _first(values: Sequence[Value | None], default: Value) -> Value:
    """The first value that is given."""
    return next((value for value in values if value is not None), default)


def _value(score: CompletionScore, activated: bool) -> float:
    assert score.score is not None
    return sigmoid(score.score) if activated else score.score


def _answer(
    request: Request, kind: str, model: str, data: list[Any], scores: Sequence[CompletionScore]
) -> JSONResponse:
    num_tokens = sum(score.tokens or 0 for score in scores)
    return JSONResponse(
        {
            "id": f"{kind}-{request.state.request_id}",
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": data,
            "usage": {
                "prompt_tokens": num_tokens,
                "total_tokens": num_tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )
