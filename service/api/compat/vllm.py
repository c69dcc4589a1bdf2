"""vLLM's and SGLang's reward-model endpoints: `/classify`, `/pooling`, `/v1/embeddings`, `/score`, `/v1/models`.

- `input` is a whole text, which the client wrote with the reward model's own chat template, so it is scored as it is,
  or token ids of the model's own tokenizer. `messages` go through the checkpoint's template here.
- SGLang's own form of `/classify` has `text` or `input_ids` in place of `input`, and answers raw scores.
- Texts that are too long are errors, unless `truncate_prompt_tokens` says what to keep (`scoring_fields`). A row whose
  text was cut has `truncated: true`.
- `use_activation: false` asks for the raw logit, as verl does. The default is what each endpoint does in vLLM: a
  sigmoid for `/classify` and `/score`, the logit elsewhere. A process reward model's `/pooling` has a list per step, of
  probabilities by default.
- verl's loop retries after 5xx only, so the retry status is 503, never 429.
- `/score` is plaudit's own route, too. `ScoreSwitch` recognises vLLM's form by its keys (`text_1`, `queries`, `data_1`)
  before routing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plaudit.errors import Invalid, TooLarge
from plaudit.schemas import CompletionScore, ScoreItem, TokenizerDigest
from service.api import json_body
from service.api.compat.base import CompatCall, Dialect, FailFastList, Text
from service.api.compat.chat import ChatTurns, to_messages
from service.api.compat.grading import sigmoid
from service.api.compat.scoring_fields import UNSUPPORTED, PairRequest, TruncatedRequest, cut_mark, first_given
from service.api.dispatch.tasks import SMALL_BYTES, in_thread
from service.api.listening import path_below_root
from service.api.state import state_of

DIALECT = Dialect("vllm", "verl reward model (vLLM, SGLang), vLLM and SGLang clients", deadline_s=120, retry_status=503)
SCORE = "/score"
INPUTS = ("input", "messages", "text", "input_ids")
VLLM_SCORE_KEYS = ("text_1", "queries", "data_1")


class PoolingRequest(TruncatedRequest):
    """What `/classify`, `/pooling` and `/v1/embeddings` have in common."""

    model: str | None = None
    input: Text | FailFastList[Any] | None = None
    messages: ChatTurns | None = None
    text: Text | FailFastList[Any] | None = None  # SGLang's two
    input_ids: FailFastList[Any] | None = None
    use_activation: bool | None = None
    activation: bool | None = None  # two older names of `use_activation`
    softmax: bool | None = None
    raw_scores: bool | None = None  # Infinity's opposite of them
    add_special_tokens: bool | None = None
    tokenizer_digest: TokenizerDigest | None = None
    task: Literal["classify", "score", "reward", "embed"] | None = None

    @property
    def is_sglang(self) -> bool:
        return self.text is not None or self.input_ids is not None

    def activated(self, default: bool) -> bool:
        raw = None if self.raw_scores is None else not self.raw_scores
        return first_given(self.use_activation, self.activation, self.softmax, raw, default=default)

    def item(self) -> ScoreItem:
        """What is to be scored: an assistant's message after the others, whole texts, or token ids. Raises Invalid."""
        given_fields = [name for name in INPUTS if getattr(self, name) is not None]
        if len(given_fields) > 1:
            raise Invalid(f"{' and '.join(given_fields)}: a request has one of them")
        if self.messages:
            if self.add_special_tokens:
                raise Invalid("add_special_tokens: the chat template places them all; leave it out")
            *prompt, last = to_messages(self.messages, "messages")
            if not prompt or last.role != "assistant":
                raise Invalid("messages: the last one must be the assistant's, after at least one other")
            return ScoreItem(prompt=prompt, completions=[[last]])
        if self.add_special_tokens is False:
            raise Invalid(
                "add_special_tokens: false is not supported; a text that begins with the BOS gets no second one, so "
                "leave it out, or send token ids"
            )
        field = given_fields[0] if given_fields else "input"
        given = getattr(self, field)
        ids = None if field == "text" else _token_ids(given)
        if ids is not None:
            return ScoreItem(token_ids=ids)
        texts = [given] if isinstance(given, str) else given
        if not texts or field == "input_ids" or not all(isinstance(text, str) and text for text in texts):
            raise Invalid(f"{field}: takes a text, a list of texts, token ids or a list of them, none of them empty")
        return ScoreItem(prompt="", completions=[*texts])


class EmbeddingsRequest(PoolingRequest):
    """`/v1/embeddings` answers raw scores, as SGLang does for reward models; nothing can be applied to them."""

    unsupported = UNSUPPORTED | dict.fromkeys(("use_activation", "activation", "softmax"), (False,))


def _token_ids(given: Any) -> list[list[int]] | None:
    """Sequences of token ids; None for what holds none. Raises Invalid for one that is empty or has other values."""
    if not isinstance(given, list) or not given:
        return None
    is_one = isinstance(given[0], int)
    if not is_one and not isinstance(given[0], list):
        return None
    sequences = [given] if is_one else given
    for index, ids in enumerate(sequences):
        where = "token ids" if is_one else f"token ids, sequence {index}"
        if not isinstance(ids, list) or not ids:
            raise Invalid(f"{where}: takes a list of at least one id")
        if wrong := [at for at in ids if type(at) is not int or not 0 <= at < 2**31]:
            raise Invalid(f"{where}: {wrong[0]!r:.40} is not a token id")
    return sequences


@DIALECT.router.post("/classify")
@DIALECT.router.post("/v1/classify")
async def classify(request: Request, body: PoolingRequest) -> JSONResponse:
    scores, model = await _pooled(request, body)
    if body.is_sglang:
        return _sglang_answer(request, body, scores)
    data = [{"label": "LABEL_0", "probs": [_value(score, body.activated(True))], "num_classes": 1} for score in scores]
    return _answer(request, "classify", model, data, scores)


def _sglang_answer(request: Request, body: PoolingRequest, scores: Sequence[CompletionScore]) -> JSONResponse:
    """SGLang's: an object with the raw score in `embedding` for a text alone, else a list of them."""
    rows = [
        {
            "embedding": [_value(score, body.activated(False))],
            "meta_info": {"id": request.state.request_id, "prompt_tokens": score.tokens},
            **cut_mark(truncated=score.truncated),
        }
        for score in scores
    ]
    given = body.text if body.text is not None else body.input_ids
    is_one = isinstance(given, str) or (isinstance(given, list) and isinstance(given[0], int))
    return JSONResponse(rows[0] if is_one else rows)


@DIALECT.router.post("/pooling")
@DIALECT.router.post("/v1/pooling")
async def pooling(request: Request, body: PoolingRequest) -> JSONResponse:
    scores, model = await _pooled(request, body)
    data = [{"object": "pooling", "data": _pooled_value(request, body, model, score)} for score in scores]
    return _answer(request, "pool", model, data, scores)


def _pooled_value(request: Request, body: PoolingRequest, model: str, score: CompletionScore) -> list[Any]:
    """A score; from a process reward model a list per step, as vLLM's pooler of steps answers: the probability of each
    label. Raises Invalid if raw values are asked for and two labels have been joined."""
    if score.steps is None:
        return [_value(score, body.activated(False))]
    is_activated = body.activated(True)
    good_label = state_of(request).fleet.models[model].good_label
    if good_label is None:
        return [[sigmoid(step) if is_activated else step] for step in score.steps]
    if not is_activated:
        raise Invalid(
            f"use_activation: false has no meaning for {model}, whose steps are log-odds of two labels; leave it out "
            "for probabilities, or read the log-odds as `steps` in the answer of POST /score"
        )
    signs = (1, -1) if good_label == 0 else (-1, 1)
    return [[sigmoid(sign * step) for sign in signs] for step in score.steps]


@DIALECT.router.post("/v1/embeddings")
async def embeddings(request: Request, body: EmbeddingsRequest) -> JSONResponse:
    scores, model = await _pooled(request, body)
    data = [{"object": "embedding", "embedding": [_value(score, False)]} for score in scores]
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


class ScorePairsRequest(PairRequest):
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
    softmax: bool | None = None

    def score_items(self) -> list[ScoreItem]:
        """One item per pair. Raises Invalid."""
        queries = _texts(first_given(self.text_1, self.queries, self.data_1, default=None))
        texts = _texts(first_given(self.text_2, self.documents, self.items, self.data_2, default=None))
        if len(queries) == 1:
            queries = queries * len(texts)
        if len(queries) != len(texts):
            raise Invalid(f"{len(queries)} queries and {len(texts)} texts: takes one query, or one per text")
        return [ScoreItem(prompt=query, completions=[text]) for query, text in zip(queries, texts, strict=True)]


@DIALECT.router.post("/v1/score")
async def score_pairs(request: Request, body: ScorePairsRequest) -> JSONResponse:
    call = CompatCall(request, DIALECT.deadline_s)
    model = call.model_name(body.model)
    on_overflow = body.pair_overflow(call, model, cuts=False)
    scores = await call.while_connected(call.score(model, body.score_items(), on_overflow=on_overflow))
    activated = first_given(body.use_activation, body.activation, body.softmax, default=True)
    data = [{"object": "score", "score": _value(score, activated)} for score in scores]
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
        if scope["type"] != "http" or scope["method"] != "POST" or path_below_root(scope) != SCORE:
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
            scope["path"] = scope["path"].removesuffix(SCORE) + f"/v1{SCORE}"
            scope["raw_path"] = scope["path"].encode()
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
    model = call.model_name(body.model)
    work = call.score(
        model,
        [item],
        on_overflow=body.text_overflow(call, model),
        whole_texts=not body.messages,
        tokenizer_digest=body.tokenizer_digest,
    )
    return await call.while_connected(work), model


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
            "data": [
                {"index": index, **row, **cut_mark(truncated=score.truncated)}
                for index, (row, score) in enumerate(zip(data, scores, strict=True))
            ],
            "usage": {
                "prompt_tokens": num_tokens,
                "total_tokens": num_tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )
