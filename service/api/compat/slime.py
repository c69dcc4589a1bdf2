"""slime and miles: one sample a request, and the body of the answer is the reward: a number, or with `?shape=dict` an
object for `--reward-key score`. Tests ride in `label`."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.schemas import Message
from service.api.compat.base import Dialect, Loose, Text, Visit
from service.api.compat.grade import Grade, Options, by_model, by_tests, tested_by

DIALECT = Dialect("slime", "slime, miles `--rm-type remote_rm --rm-url`", deadline_s=110, sheds=503)


class Turn(Loose):
    role: str
    content: Text | None = None


class Sample(Loose):
    prompt: Text | list[Turn]
    response: Text
    label: Any = None


@DIALECT.router.post("/slime")
async def slime(request: Request, sample: Sample) -> JSONResponse:
    options, visit = Options.of(request, "shape"), Visit(request, DIALECT.deadline_s)
    grade = await visit.alive(_grade(visit, sample, options))
    if request.query_params.get("shape") == "dict":
        return JSONResponse(grade.numbers() | {"score": grade.reward})
    return JSONResponse(grade.reward)


async def _grade(visit: Visit, sample: Sample, options: Options) -> Grade:
    tested = tested_by(sample.label, options, "label")
    if tested is not None:
        return await by_tests(visit, sample.response, tested, options)
    prompt = sample.prompt if isinstance(sample.prompt, str) else messages(sample.prompt)
    return await by_model(visit, prompt, sample.response, options)


def messages(turns: list[Turn]) -> list[Message]:
    """A conversation in the contract's roles."""
    known = {"system": "system", "developer": "system", "assistant": "assistant", "tool": "tool", "function": "tool"}
    return [Message(role=known.get(turn.role, "user"), content=turn.content or "") for turn in turns]  # type: ignore[arg-type]
