"""NeMo-Gym's resources server: `/seed_session`, `/verify`, `/aggregate_metrics` and `/reverify_mode`.

`/verify` gives the request back with a reward added: 1 if the program of the model's last message passes every test
of `verifier_metadata.unit_tests`, else 0. What another shard could do better is 503, which NeMo-RL counts as
infrastructure; a fault that no retry mends is 200 with `_ng_failure_class` and `mask_sample`, as the server itself
would say it, and `/aggregate_metrics` leaves such answers out of its means.
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
from plaudit.schemas import ExecuteItem, ExecuteRequest
from service.api.compat.base import Dialect, Loose, Visit, judged

DIALECT = Dialect("nemo_gym", "NeMo-Gym, NeMo-RL, verifiers `nemo_gym` task set", deadline_s=55, sheds=503)
TASK = "_ng_task_index"
REL_TOL = 1e-6  # NeMo-Gym's own, of numbers that are not integers


class Verify(Loose):
    """Kept whole, because it goes back whole."""

    model_config = ConfigDict(extra="allow", frozen=True)

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    verifier_metadata: dict[str, Any] = Field(default_factory=dict)


class Answers(Loose):
    verify_responses: list[dict[str, Any]]


@DIALECT.router.get("/reverify_mode")
async def reverify_mode() -> str:
    """The same answer can be verified again at any time: nothing is kept of a session."""
    return "stateless"


@DIALECT.router.post("/aggregate_metrics")
async def aggregate_metrics(body: Answers) -> dict[str, Any]:
    """`mean/reward`, `max/…` of every number: of each task's answers, and of all."""
    tasks: dict[Any, list[dict[str, Any]]] = {}
    for answer in body.verify_responses:
        tasks.setdefault(answer.get(TASK), []).append(answer)
    whole = _statistics(body.verify_responses)
    headline = {name: value for name, value in whole.items() if name in ("mean/reward", "masked")}
    return {
        "group_level_metrics": [{TASK: task, **_statistics(answers)} for task, answers in tasks.items()],
        "agent_metrics": whole,
        "key_metrics": headline,
    }


def _statistics(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    measured = [one for one in answers if "_ng_failure_class" not in one and not one.get("mask_sample")]
    names = sorted(
        {
            name
            for one in measured
            for name, value in one.items()
            if isinstance(value, int | float) and not name.startswith("_")
        }
        - {"mask_sample"}
    )
    told = {"masked": float(len(answers) - len(measured))}
    for name in names:
        told |= _of_column(name, (float(one[name]) for one in measured if isinstance(one.get(name), int | float)))
    return told


def _of_column(name: str, column: Iterable[float]) -> dict[str, float]:
    values = list(column)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        f"mean/{name}": statistics.fmean(values),
        f"max/{name}": max(values),
        f"min/{name}": min(values),
        f"median/{name}": statistics.median(values),
        f"std/{name}": spread,
    }


@DIALECT.router.post("/seed_session")
async def seed_session() -> dict[str, Any]:
    return {}


@DIALECT.router.post("/verify")
async def verify(request: Request, body: Verify) -> JSONResponse:
    unit_tests = body.verifier_metadata.get("unit_tests")
    tested = required_tests(unit_tests, "verifier_metadata.unit_tests")
    grader = Grader.of(request)
    language = tested.language or str(body.verifier_metadata.get("language") or "python")
    code = code_of(written(body.response), language)
    given = body.model_dump(mode="json")
    if code is None:
        return JSONResponse(
            given
            | {
                "reward": 0.0,
                "result": [],
                "metadata": {"error": "no code in the answer"},
                "extracted_model_code": None,
                "unit_tests_time_taken": 0.0,
            }
        )
    visit = Visit(request, DIALECT.deadline_s)
    item = ExecuteItem(
        language=language, programs=[code.text], limits=visit.limits(), tests=tested.graded(language, grader, REL_TOL)
    )
    answer = await visit.alive(visit.execute(ExecuteRequest(items=[item])))
    program = answer.results[0].programs[0]
    if program.status == "infra_error" and program.error is not None and not program.error.retryable:
        return JSONResponse(
            given
            | {
                "reward": 0.0,
                "mask_sample": True,
                "_ng_failure_class": "judge_failed",
                "_ng_failure_judge_error": program.error.detail,
            }
        )
    judged(program)
    failed = next((test for test in program.tests if test.verdict is not Verdict.PASSED), None)
    return JSONResponse(
        given
        | {
            "reward": float(program.passed == program.total),
            "result": [test.verdict is Verdict.PASSED for test in program.tests],
            "metadata": {} if failed is None else {"verdict": failed.verdict.value, "error": failed.detail},
            "extracted_model_code": code.text,
            "unit_tests_time_taken": sum(test.wall_ms for test in program.tests) / 1000,
        }
    )


def written(response: dict[str, Any]) -> str:
    """The text of the assistant's last message in an OpenAI response object."""
    texts = [
        "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
        for message in response.get("output") or []
        if isinstance(message, dict)
        and message.get("type", "message") == "message"
        and isinstance(parts := message.get("content"), list)
    ]
    return texts[-1] if texts else ""
