"""NeMo-Gym's resources server: `/seed_session`, `/verify`, `/aggregate_metrics` and `/reverify_mode`.

- `/verify` gives the request back with a reward added: 1 if the program of the model's last message passes every test
  of `verifier_metadata.unit_tests`, else 0.
- A server error that a retry can mend is 503, which NeMo-RL counts as an infrastructure failure. One that no retry
  mends is 200 with `_ng_failure_class` and `mask_sample`, as NeMo-Gym's own server answers, and `/aggregate_metrics`
  leaves such answers out of its means.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from plaudit.extract import code_of
from plaudit.graders import Grader
from plaudit.grading import Verdict
from plaudit.labels import required_tests
from plaudit.schemas import ExecuteItem
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, judged

DIALECT = Dialect("nemo_gym", "NeMo-Gym, NeMo-RL, verifiers `nemo_gym` task set", deadline_s=55, retry_status=503)
TASK = "_ng_task_index"
REL_TOL = 1e-6  # NeMo-Gym's own, for numbers that are not integers


class VerifyRequest(CompatRequest):
    """Unknown fields are kept, because the answer repeats the whole request."""

    model_config = ConfigDict(extra="allow", frozen=True)

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    verifier_metadata: dict[str, Any] = Field(default_factory=dict)


class AggregateMetricsRequest(CompatRequest):
    verify_responses: FailFastList[dict[str, Any]]


@DIALECT.router.get("/reverify_mode")
async def reverify_mode() -> str:
    """An answer can be verified again at any time, because no session is kept."""
    return "stateless"


@DIALECT.router.post("/aggregate_metrics")
async def aggregate_metrics(body: AggregateMetricsRequest) -> dict[str, Any]:
    """`mean/reward`, `max/…` and so on of every number: per task, and of all answers."""
    tasks: dict[Any, list[dict[str, Any]]] = {}
    for answer in body.verify_responses:
        tasks.setdefault(answer.get(TASK), []).append(answer)
    overall = _statistics(body.verify_responses)
    key_metrics = {name: value for name, value in overall.items() if name in ("mean/reward", "masked")}
    return {
        "group_level_metrics": [{TASK: task, **_statistics(answers)} for task, answers in tasks.items()],
        "agent_metrics": overall,
        "key_metrics": key_metrics,
    }


def _statistics(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    measured = [answer for answer in answers if "_ng_failure_class" not in answer and not answer.get("mask_sample")]
    names = sorted(
        {
            name
            for answer in measured
            for name, value in answer.items()
            if isinstance(value, int | float) and not name.startswith("_")
        }
        - {"mask_sample"}
    )
    metrics = {"masked": float(len(answers) - len(measured))}
    for name in names:
        column = (float(answer[name]) for answer in measured if isinstance(answer.get(name), int | float))
        metrics |= _column_statistics(name, column)
    return metrics


def _column_statistics(name: str, column: Iterable[float]) -> dict[str, float]:
    values = list(column)
    return {
        f"mean/{name}": statistics.fmean(values),
        f"max/{name}": max(values),
        f"min/{name}": min(values),
        f"median/{name}": statistics.median(values),
        f"std/{name}": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


@DIALECT.router.post("/seed_session")
async def seed_session() -> dict[str, Any]:
    return {}


@DIALECT.router.post("/verify")
async def verify(request: Request, body: VerifyRequest) -> JSONResponse:
    unit_tests = body.verifier_metadata.get("unit_tests")
    tested = required_tests(unit_tests, "verifier_metadata.unit_tests")
    grader = Grader.of(request)
    language = tested.language or str(body.verifier_metadata.get("language") or "python")
    code = code_of(last_message_text(body.response), language)
    request_fields = body.model_dump(mode="json")
    if code is None:
        return JSONResponse(
            request_fields
            | {
                "reward": 0.0,
                "result": [],
                "metadata": {"error": "no code in the answer"},
                "extracted_model_code": None,
                "unit_tests_time_taken": 0.0,
            }
        )
    call = CompatCall(request, DIALECT.deadline_s)
    item = ExecuteItem(
        language=language, programs=[code.text], limits=call.limits(), tests=tested.graded(language, grader, REL_TOL)
    )
    program = await call.while_connected(call.judge(item))
    if program.status == "infra_error" and program.error is not None and not program.error.retryable:
        return JSONResponse(
            request_fields
            | {
                "reward": 0.0,
                "mask_sample": True,
                "_ng_failure_class": "judge_failed",
                "_ng_failure_judge_error": program.error.detail,
            }
        )
    judged(program)
    first_failed = next((test for test in program.tests if test.verdict is not Verdict.PASSED), None)
    return JSONResponse(
        request_fields
        | {
            "reward": float(program.passed == program.total),
            "result": [test.verdict is Verdict.PASSED for test in program.tests],
            "metadata": {}
            if first_failed is None
            else {"verdict": first_failed.verdict.value, "error": first_failed.detail},
            "extracted_model_code": code.text,
            "unit_tests_time_taken": sum(test.wall_ms for test in program.tests) / 1000,
        }
    )


def last_message_text(response: dict[str, Any]) -> str:
    """The text of the assistant's last message in an OpenAI response object."""
    texts = [
        "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
        for message in response.get("output") or []
        if isinstance(message, dict)
        and message.get("type", "message") == "message"
        and isinstance(parts := message.get("content"), list)
    ]
    return texts[-1] if texts else ""
