"""Rerankers: Cohere's, Jina's, Infinity's and vLLM's `{query, documents}`, and TEI's `{query, texts}`.

- The query is the prompt and the documents are its completions. Relevance is the sigmoid of the score unless
  `raw_scores` (or vLLM's `use_activation: false`), because these clients expect [0, 1].
- A document that is too long loses its end, or under `truncation_direction: "left"` its beginning; the query stays.
  In TEI's form it is an error unless `truncate`; in the others only where `truncate` (or `truncation`) is false. A
  result whose document was cut says so in `truncated`, and Cohere's `meta.warnings` counts them.
- Overload is 429 with Retry-After, which these clients honour.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.errors import Invalid
from plaudit.schemas import ScoreItem
from service.api.compat.base import CompatCall, Dialect, FailFastList, Text
from service.api.compat.grading import sigmoid
from service.api.compat.scoring_fields import AtLeastZero, PairRequest, cut_mark, first_given

DIALECT = Dialect(
    "rerank", "Cohere SDK, LiteLLM, Jina, Infinity, vLLM, text-embeddings-inference", deadline_s=55, retry_status=429
)


class RerankRequest(PairRequest):
    query: Text
    documents: FailFastList[Text | dict[str, Any]] | None = None
    texts: FailFastList[Text] | None = None
    model: str | None = None
    top_n: AtLeastZero | None = None
    rank_fields: FailFastList[str] | None = None
    return_documents: bool | None = None
    return_text: bool = False
    raw_scores: bool = False
    use_activation: bool | None = None
    activation: bool | None = None  # two older names of `use_activation`
    softmax: bool | None = None
    truncate: bool | None = None
    truncation: bool | None = None

    @property
    def activated(self) -> bool:
        return first_given(self.use_activation, self.activation, self.softmax, default=not self.raw_scores)

    def document_texts(self) -> list[str]:
        """The documents as texts; an object's `rank_fields`, or its `text`, or all its fields."""
        documents: list[Any] = list(self.texts if self.texts is not None else self.documents or [])
        return [document if isinstance(document, str) else self._joined(document) for document in documents]

    def _joined(self, document: dict[str, Any]) -> str:
        names = self.rank_fields or (["text"] if "text" in document else list(document))
        return "\n".join(str(document.get(name, "")) for name in names)


@DIALECT.router.post("/rerank")
@DIALECT.router.post("/v1/rerank")
@DIALECT.router.post("/v2/rerank")
async def rerank(request: Request, body: RerankRequest) -> JSONResponse:
    if body.texts is None and body.documents is None:
        raise Invalid("documents (or texts) are missing")
    documents = body.document_texts()
    is_tei = body.texts is not None
    results: list[dict[str, Any]] = []
    num_tokens = num_cut = 0
    model = body.model or "default"
    if documents:
        call = CompatCall(request, DIALECT.deadline_s)
        model = call.model_name(body.model)
        item = ScoreItem(prompt=body.query, completions=[*documents])
        cuts = first_given(body.truncate, body.truncation, default=not is_tei)
        on_overflow = body.pair_overflow(call, model, cuts=cuts)
        scores = await call.while_connected(call.score(model, [item], on_overflow=on_overflow))
        num_tokens = sum(score.tokens or 0 for score in scores)
        num_cut = sum(score.truncated for score in scores)
        values = [score.score or 0.0 for score in scores]
        order = sorted(range(len(values)), key=lambda index: (-values[index], index))
        field = "score" if is_tei else "relevance_score"
        results = [
            {"index": index, field: sigmoid(values[index]) if body.activated else values[index]}
            | cut_mark(truncated=scores[index].truncated)
            for index in order
        ]
    if body.top_n:
        results = results[: body.top_n]
    if is_tei:
        if body.return_text:
            results = [result | {"text": documents[result["index"]]} for result in results]
        return JSONResponse(results)
    if body.return_documents:
        results = [result | {"document": {"text": documents[result["index"]]}} for result in results]
    lost = "end" if body.document_side == "right" else "beginning"
    warnings = [f"{num_cut} of {len(documents)} documents (or their query) were too long and lost their {lost}"]
    return JSONResponse(
        {
            "id": request.state.request_id,
            "object": "rerank",
            "model": model,
            "results": results,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "warnings": warnings if num_cut else None,
            },
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }
    )
