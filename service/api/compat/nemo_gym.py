"""NeMo-Gym's resources server: `/seed_session`, `/close_session`, `/verify`, `/aggregate_metrics`, `/reverify_mode`.

- `/verify` gives the request back with a reward added: 1 if the program of the model's last message passes every test
  of `verifier_metadata.unit_tests`, else 0. It is the only one of `reward_components`, whose sum NeMo-RL compares.
- The tests may be packed, as NeMo-Gym's benchmark of LiveCodeBench has them: base64 of zlib-compressed JSON.
- A server error that a retry can mend is 503, which NeMo-RL counts as an infrastructure failure. One that no retry
  mends is 200 with `mask_sample` and `failure_kind`, as NeMo-Gym's own server answers, and `/aggregate_metrics`
  leaves such answers out of its means. Before 0.7 these were `instance_config.mask_sample` and `_ng_failure_class`.
- No session is kept, so a session may be seeded and closed in any order, and twice.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from plaudit.errors import Invalid
from plaudit.extract import code_of
from plaudit.graders import Grader
from plaudit.grading import Verdict
from plaudit.labels import required_tests
from plaudit.schemas import ExecuteItem
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, Text, inflated, judged

DIALECT = Dialect("nemo_gym", "NeMo-Gym, NeMo-RL, verifiers `nemo_gym` task set", deadline_s=55, retry_status=503)
TASK = "_ng_task_index"
UNIT_TESTS = "verifier_metadata.unit_tests"
FAILURE = "judge_failed"  # of NeMo-Gym's vocabulary
REL_TOL = 1e-6  # NeMo-Gym's own, for numbers that are not integers


class VerifyRequest(CompatRequest):
    """Unknown fields are kept, because the answer repeats the whole request."""

    model_config = ConfigDict(extra="allow", frozen=True)

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    verifier_metadata: dict[str, Any] = Field(default_factory=dict)


class SessionRequest(CompatRequest):
    resources_session_id: Text | None = None


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
async def seed_session(body: SessionRequest | None = None) -> dict[str, Any]:
    return {} if body is None else body.model_dump(exclude_none=True)


@DIALECT.router.post("/close_session")
async def close_session(body: SessionRequest | None = None) -> dict[str, Any]:
    return {} if body is None else body.model_dump(exclude_none=True)


@DIALECT.router.post("/verify")
async def verify(request: Request, body: VerifyRequest) -> JSONResponse:
    tested = required_tests(unpacked(body.verifier_metadata.get("unit_tests")), UNIT_TESTS)
    grader = Grader.of(request)
    language = tested.language or str(body.verifier_metadata.get("language") or "python")
    code = code_of(last_message_text(body.response), language)
    request_fields = body.model_dump(mode="json")
    if code is None:
        return JSONResponse(
            request_fields
            | rewarded(0.0, 0.0)
            | {
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
        return JSONResponse(request_fields | masked(request_fields.get("instance_config"), program.error.detail))
    judged(program)
    first_failed = next((test for test in program.tests if test.verdict is not Verdict.PASSED), None)
    return JSONResponse(
        request_fields
        | rewarded(float(program.passed == program.total), program.pass_rate or 0.0)
        | {
            "result": [test.verdict is Verdict.PASSED for test in program.tests],
            "metadata": {}
            if first_failed is None
            else {"verdict": first_failed.verdict.value, "error": first_failed.detail},
            "extracted_model_code": code.text,
            "unit_tests_time_taken": sum(test.wall_ms for test in program.tests) / 1000,
        }
    )


def rewarded(reward: float, pass_rate: float) -> dict[str, Any]:
    """A reward that was measured. Gym's metrics read numbers beside it, not those in `reward_components`."""
    return {
        "reward": reward,
        "reward_components": {"tests": reward},
        "pass_rate": pass_rate,
        "mask_sample": False,
    }


def masked(instance_config: Any, reason: str) -> dict[str, Any]:
    """No measurement: a sample to leave out, by the fields of 0.7 and by the older ones."""
    config = instance_config if isinstance(instance_config, dict) else {}
    return {
        "reward": 0.0,
        "reward_components": {"tests": 0.0},
        "mask_sample": True,
        "failure_kind": FAILURE,
        "failure_reason": reason,
        "instance_config": {**config, "mask_sample": True},
        "_ng_failure_class": FAILURE,
        "_ng_failure_judge_error": reason,
    }


def unpacked(unit_tests: Any) -> Any:
    """Tests as they are, or those in `packed`. Raises Invalid."""
    if not isinstance(unit_tests, dict) or not isinstance(packed := unit_tests.get("packed"), str):
        return unit_tests
    data = inflated(packed, f"{UNIT_TESTS}.packed")
    try:
        tests = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{UNIT_TESTS}.packed: not JSON when unpacked: {error}") from None
    if not isinstance(tests, dict):
        raise Invalid(f"{UNIT_TESTS}.packed: takes an object of inputs and outputs, not {type(tests).__name__}")
    return tests | {name: value for name, value in unit_tests.items() if name != "packed"}


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
