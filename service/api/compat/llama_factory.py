"""LLaMA-Factory's PPO: `POST /v1/score/evaluation {model, messages}` → `{scores}`, one raw logit a whole text.

The client has no timeout, tries once, and crashes on anything but scores. So the handler waits, long; if the service is
away for longer than that, the honest answer is the error, and the crash is the right one: a made-up score would train.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.schemas import ScoreAnswer, ScoreRequest
from service.api.compat.base import Dialect, Loose, Text, Visit, raise_for
from service.api.handlers.score import WholeTexts

DIALECT = Dialect("llama_factory", "LLaMA-Factory `reward_model_type: api`", deadline_s=600, sheds=None)


class Evaluate(Loose):
    messages: list[Text]
    model: str | None = None


@DIALECT.router.post("/v1/score/evaluation")
async def evaluation(request: Request, body: Evaluate) -> JSONResponse:
    visit = Visit(request, DIALECT.deadline_s)
    scores = await visit.alive(visit.patiently(lambda: _scores(visit, body))) if body.messages else []
    return JSONResponse(
        {
            "id": f"scoreeval-{request.state.request_id}",
            "object": "score.evaluation",
            "model": body.model or visit.model(None),
            "scores": scores,
        }
    )


async def _scores(visit: Visit, body: Evaluate) -> list[float]:
    ask = ScoreRequest(
        model=visit.model(body.model), items=[WholeTexts(completions=body.messages)], on_overflow="truncate_left"
    )
    answer: ScoreAnswer = await visit.score(ask)
    found = []
    for one in answer.results[0].completions:
        raise_for(one.status, one.error)
        assert one.score is not None
        found.append(one.score)
    return found
