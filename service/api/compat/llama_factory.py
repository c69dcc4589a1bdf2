"""LLaMA-Factory's PPO: `POST /v1/score/evaluation {model, messages}` → `{scores}`, one raw logit per whole text.

The client has no timeout, tries once, and crashes on anything but scores. So the handler waits for up to ten minutes.
If the service is away for longer, the answer is the error: a made-up score would be trained on, so a crash is better.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.schemas import ScoreItem
from service.api.compat.base import CompatCall, Dialect, FailFastList, Text
from service.api.compat.scoring_fields import ScoringRequest

DIALECT = Dialect("llama_factory", "LLaMA-Factory `reward_model_type: api`", deadline_s=600, retry_status=None)


class ScoreEvaluationRequest(ScoringRequest):
    messages: FailFastList[Text]
    model: str | None = None


@DIALECT.router.post("/v1/score/evaluation")
async def evaluation(request: Request, body: ScoreEvaluationRequest) -> JSONResponse:
    call = CompatCall(request, DIALECT.deadline_s)
    scores = await call.while_connected(call.with_retries(lambda: _scores(call, body))) if body.messages else []
    return JSONResponse(
        {
            "id": f"scoreeval-{request.state.request_id}",
            "object": "score.evaluation",
            "model": body.model or call.model_name(None),
            "scores": scores,
        }
    )


async def _scores(call: CompatCall, body: ScoreEvaluationRequest) -> list[float | None]:
    item = ScoreItem(prompt="", completions=[*body.messages])
    scores = await call.score(call.model_name(body.model), [item], on_overflow="truncate_left", whole_texts=True)
    return [score.score for score in scores]
