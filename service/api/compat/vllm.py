"""vLLM's and SGLang's reward-model endpoints: `/classify`, `/pooling`, `/v1/embeddings`, `/score`, `/v1/models`.

`input` is a whole text, written by the reward model's own chat template on the client's side, so it is scored as it
is; `messages` go through the checkpoint's template here. `use_activation: false` is the raw logit, as verl asks; the
default is what each endpoint does in vLLM: a sigmoid for `/classify` and `/score`, the logit elsewhere. verl's loop
tries again after 5xx only, so these shed with 503, never with 429.

`/score` is ours too. Theirs is told by its keys (`text_1`, `queries`, `data_1`) before the routes are asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plaudit.errors import Invalid
from plaudit.schemas import CompletionScore, ScoreItem, ScoreRequest
from service.api.compat.base import Dialect, Loose, Text, Visit, raise_for
from service.api.compat.grade import sigmoid
from service.api.compat.slime import Turn, messages
from service.api.handlers.score import WholeTexts

DIALECT = Dialect("vllm", "verl reward model (vLLM, SGLang), vLLM and SGLang clients", deadline_s=120, sheds=503)
THEIRS = ("text_1", "queries", "data_1")


class Pooled(Loose):
    """What `/classify`, `/pooling` and `/v1/embeddings` have in common."""

    model: str | None = None
    input: Text | list[Any] | None = None
    messages: list[Turn] | None = None
    use_activation: bool | None = None
    activation: bool | None = None  # two older names of the same
    softmax: bool | None = None
    truncate_prompt_tokens: int | None = None

    def activated(self, default: bool) -> bool:
        said = (self.use_activation, self.activation, self.softmax)
        return next((one for one in said if one is not None), default)

    def items(self) -> list[ScoreItem]:
        """What is to be scored. Raises Invalid."""
        if self.messages:
            *before, last = messages(self.messages)
            if not before or last.role != "assistant":
                raise Invalid("messages: the last one is the assistant's, and there is one before it")
            return [ScoreItem(prompt=before, completions=[last.content])]
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise Invalid("input: takes a text or a list of texts, none of them empty; token ids are not taken")
        return [WholeTexts(completions=list(texts))]


@DIALECT.router.post("/classify")
@DIALECT.router.post("/v1/classify")
async def classify(request: Request, body: Pooled) -> JSONResponse:
    scores, name = await scored(request, body.model, body.items(), truncate=body.truncate_prompt_tokens is not None)
    data = [
        {"index": at, "label": "LABEL_0", "probs": [_value(one, body.activated(True))], "num_classes": 1}
        for at, one in enumerate(scores)
    ]
    return JSONResponse(_envelope(request, "classify", name, data, scores))


@DIALECT.router.post("/pooling")
@DIALECT.router.post("/v1/pooling")
async def pooling(request: Request, body: Pooled) -> JSONResponse:
    scores, name = await scored(request, body.model, body.items(), truncate=body.truncate_prompt_tokens is not None)
    data = [
        {"index": at, "object": "pooling", "data": [_value(one, body.activated(False))]}
        for at, one in enumerate(scores)
    ]
    return JSONResponse(_envelope(request, "pool", name, data, scores))


@DIALECT.router.post("/v1/embeddings")
async def embeddings(request: Request, body: Pooled) -> JSONResponse:
    scores, name = await scored(request, body.model, body.items(), truncate=body.truncate_prompt_tokens is not None)
    data = [{"index": at, "object": "embedding", "embedding": [_value(one, False)]} for at, one in enumerate(scores)]
    return JSONResponse(_envelope(request, "embd", name, data, scores))


@DIALECT.router.get("/v1/models")
async def models(request: Request) -> JSONResponse:
    served = request.app.state.services.fleet.models.values()
    data = [
        {
            "id": one.name,
            "object": "model",
            "created": 0,
            "owned_by": "plaudit",
            "root": one.revision,
            "parent": None,
            "max_model_len": one.max_length,
            "permission": [],
        }
        for one in served
    ]
    return JSONResponse({"object": "list", "data": data})


# --- /score ----------------------------------------------------------------------------------------------------------


class Pairs(Loose):
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

    def sides(self) -> tuple[list[str], list[str]]:
        """Queries and texts, of the same number. Raises Invalid."""
        left = _texts(next((one for one in (self.text_1, self.queries, self.data_1) if one is not None), None))
        right = _texts(
            next((one for one in (self.text_2, self.documents, self.items, self.data_2) if one is not None), None)
        )
        if len(left) == 1:
            left = left * len(right)
        if len(left) != len(right):
            raise Invalid(f"{len(left)} queries and {len(right)} texts: takes one query, or as many")
        return left, right


@DIALECT.router.post("/v1/score")
async def score(request: Request, body: Pairs) -> JSONResponse:
    queries, texts = body.sides()
    items = [ScoreItem(prompt=query, completions=[text]) for query, text in zip(queries, texts, strict=True)]
    scores, name = await scored(request, body.model, items, truncate=body.truncate_prompt_tokens is not None)
    activated = next((one for one in (body.use_activation, body.activation) if one is not None), True)
    data = [{"index": at, "object": "score", "score": _value(one, activated)} for at, one in enumerate(scores)]
    return JSONResponse(_envelope(request, "score", name, data, scores))


def _texts(side: Any) -> list[str]:
    texts = [side] if isinstance(side, str) else side
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Invalid("takes a text or a list of texts on both sides")
    return [text.encode("utf-8", "replace").decode() for text in texts]


class ScoreSwitch:
    """Sends vLLM's form of `POST /score` to `/v1/score`; the native one passes by, read once and handed on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/score" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        parts: list[bytes] = []
        message: Message = {"type": "http.request", "more_body": True}
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
            parts.append(message.get("body", b""))
        whole: list[Message] = [
            message
            if message["type"] == "http.disconnect"
            else {"type": "http.request", "body": b"".join(parts), "more_body": False}
        ]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        if _theirs(b"".join(parts)):
            scope["path"], scope["raw_path"] = "/v1/score", b"/v1/score"
        await self.app(scope, again, send)


def _theirs(body: bytes) -> bool:
    """Whether a body is vLLM's; only one that could be is parsed."""
    if not any(f'"{key}"'.encode() in body for key in THEIRS):
        return False
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and any(key in parsed for key in THEIRS)


# --- what they share -------------------------------------------------------------------------------------------------


async def scored(
    request: Request,
    asked: str | None,
    items: Sequence[ScoreItem],
    *,
    truncate: bool,
    deadline_s: float = DIALECT.deadline_s,
) -> tuple[list[CompletionScore], str]:
    """The scores of all completions, in order, and the model's name. All or an error: their answers know no gaps."""
    visit = Visit(request, deadline_s)
    name = visit.model(asked)
    ask = ScoreRequest(model=name, items=list(items), on_overflow="truncate_left" if truncate else "error")
    answer = await visit.alive(visit.score(ask))
    scores = [one for result in answer.results for one in result.completions]
    for one in scores:
        raise_for(one.status, one.error)
    return scores, name


def _value(one: CompletionScore, activated: bool) -> float:
    assert one.score is not None
    return sigmoid(one.score) if activated else one.score


def _envelope(request: Request, kind: str, model: str, data: list[Any], scores: Sequence[CompletionScore]) -> Any:
    tokens = sum(one.tokens or 0 for one in scores)
    return {
        "id": f"{kind}-{request.state.request_id}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    }
