"""Rerankers: Cohere's, Jina's, Infinity's and vLLM's `{query, documents}`, and TEI's `{query, texts}`, told by keys.

The query is the prompt and the documents are its completions. Relevance is the sigmoid of the score unless
`raw_scores`, because these clients expect [0, 1]. A document that is too long is an error in TEI's dialect unless
`truncate`, and loses its beginning elsewhere, where Cohere's `meta.warnings` says so. Overload is 429 with
Retry-After, which these clients honour.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.errors import Invalid
from plaudit.schemas import ScoreItem
from service.api.compat.base import Dialect, Loose, Text
from service.api.compat.grade import sigmoid
from service.api.compat.vllm import scored

DIALECT = Dialect(
    "rerank", "Cohere SDK, LiteLLM, Jina, Infinity, vLLM, text-embeddings-inference", deadline_s=55, sheds=429
)


class Rerank(Loose):
    query: Text
    documents: list[Text | dict[str, Any]] | None = None
    texts: list[Text] | None = None
    model: str | None = None
    top_n: int | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    return_text: bool = False
    raw_scores: bool = False
    truncate: bool | None = None

    def plain(self) -> list[str]:
        """The documents as texts; an object's `rank_fields`, or its `text`, or all its fields."""
        given: list[Any] = list(self.texts if self.texts is not None else self.documents or [])
        return [one if isinstance(one, str) else self._joined(one) for one in given]

    def _joined(self, document: dict[str, Any]) -> str:
        names = self.rank_fields or (["text"] if "text" in document else list(document))
        return "\n".join(str(document.get(name, "")) for name in names)


@DIALECT.router.post("/rerank")
@DIALECT.router.post("/v1/rerank")
@DIALECT.router.post("/v2/rerank")
async def rerank(request: Request, body: Rerank) -> JSONResponse:
    if body.texts is None and body.documents is None:
        raise Invalid("documents (or texts) are missing")
    documents = body.plain()
    tei = body.texts is not None
    results: list[dict[str, Any]] = []
    tokens = cut = 0
    model = body.model or "default"
    if documents:
        item = ScoreItem(prompt=body.query, completions=documents)
        scores, model = await scored(
            request, body.model, [item], truncate=not tei or bool(body.truncate), deadline_s=DIALECT.deadline_s
        )
        tokens, cut = sum(one.tokens or 0 for one in scores), sum(one.truncated for one in scores)
        values = [one.score or 0.0 for one in scores]
        order = sorted(range(len(values)), key=lambda at: (-values[at], at))
        name = "score" if tei else "relevance_score"
        results = [{"index": at, name: values[at] if body.raw_scores else sigmoid(values[at])} for at in order]
    if body.top_n:
        results = results[: body.top_n]
    if tei:
        texts = {"text": documents} if body.return_text else {}
        return JSONResponse([one | {key: column[one["index"]] for key, column in texts.items()} for one in results])
    if body.return_documents:
        results = [one | {"document": {"text": documents[one["index"]]}} for one in results]
    warned = [f"{cut} documents were longer than the model takes and lost their beginning"] if cut else None
    return JSONResponse(
        {
            "id": request.state.request_id,
            "object": "rerank",
            "model": model,
            "results": results,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "warnings": warned},
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
