"""slime and miles: one sample per request, with tests in `label`.

The body of the answer is the reward: a number, or with `?shape=dict` an object for `--reward-key score`.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from service.api.compat.base import CompatCall, CompatRequest, Dialect, Text
from service.api.compat.chat import ChatTurns, to_messages
from service.api.compat.grading import Grade, GradeOptions, grade_by_model, grade_by_tests, tests_of

DIALECT = Dialect("slime", "slime, miles `--rm-type remote_rm --rm-url`", deadline_s=110, retry_status=503)


class SlimeSample(CompatRequest):
    prompt: Text | ChatTurns
    response: Text
    label: Any = None


@DIALECT.router.post("/slime")
async def slime(request: Request, sample: SlimeSample) -> JSONResponse:
    options, call = GradeOptions.of(request, "shape"), CompatCall(request, DIALECT.deadline_s)
    grade = await call.while_connected(_grade(call, sample, options))
    if request.query_params.get("shape") == "dict":
        return JSONResponse(grade.columns() | {"score": grade.reward})
    return JSONResponse(grade.reward)


async def _grade(call: CompatCall, sample: SlimeSample, options: GradeOptions) -> Grade:
    tests = tests_of(sample.label, options, "label")
    if tests is not None:
        return await grade_by_tests(call, sample.response, tests, options)
    prompt = sample.prompt if isinstance(sample.prompt, str) else to_messages(sample.prompt, "prompt")
    return await grade_by_model(call, prompt, sample.response, options)
