"""ROLL's remote reward system: `submit_task`, then `task_result` (a GET with a JSON body) until it is done.

A submitted task is a durable request of ours, so any API process can answer for it, and the same task submitted twice
is one. `errcode`: 0 done, 1 pending, 2 and above no reward. The worker asks five times for what has no reward and then
takes it for 0, so a task that failed for reasons that pass stays pending, and is run again, until its deadline.
(ROLL's other caller, `code_sandbox`, speaks `/run_code`.)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.errors import NotFound
from plaudit.schemas import ExecuteTerm, JobStatus, RewardItem, RewardRequest, RewardSpec, ScoreTerm
from service.api.compat.base import Dialect, Loose, Text, Visit
from service.api.compat.grade import Options, tested_by
from service.api.compat.slime import Turn, messages
from service.api.stores.durable_requests import START, request_id_of
from service.jobs import content_hash
from service.queue.protocol import now_ms

DIALECT = Dialect("roll", "ROLL `remote_reward_system_worker`", deadline_s=300, sheds=503)
PENDING, NO_REWARD, UNKNOWN = 1, 2, 3
WAIT_S = 1.5  # the worker asks every two seconds


class Task(Loose):
    prompt: Text | list[Turn]
    response: Text
    reward_info: Any = None
    data_id: Any = None
    rollout_id: Any = None
    timeout: float | None = None


class Poll(Loose):
    reward_request_id: str = ""


@DIALECT.router.post("/submit_task")
@DIALECT.router.post("/roll/submit_task")
async def submit_task(request: Request, task: Task) -> JSONResponse:
    options = Options.of(request)
    visit = Visit(request, min(DIALECT.deadline_s, task.timeout or DIALECT.deadline_s))
    tested = tested_by(task.reward_info, options, "reward_info")
    language = (tested.language if tested is not None else None) or options.language
    term = (
        ScoreTerm(name="rm", type="score", model=visit.model(options.model), on_overflow="truncate_left")
        if tested is None
        else ExecuteTerm(name="tests", type="execute", policy=options.policy)
    )
    item = RewardItem(
        prompt=task.prompt if isinstance(task.prompt, str) else messages(task.prompt),
        completions=[task.response],
        extract="last_fence",
        tests=None if tested is None else tested.graded(language, options),
        language=language,
        limits=visit.limits(),
    )
    body = RewardRequest(spec=RewardSpec(terms=[term]), items=[item]).model_dump_json().encode()
    visit.services.door.check_reward(RewardRequest.model_validate_json(body))
    tenant = request.state.tenant
    job = request_id_of(tenant, content_hash("roll", body))
    await visit.services.ledger.start(job, "/reward", body, tenant, visit.until_ms, 1)
    return JSONResponse({"errcode": 0, "errmsg": "", "reward_request_id": job})


@DIALECT.router.get("/task_result")
@DIALECT.router.get("/roll/task_result")
@DIALECT.router.post("/task_result")
@DIALECT.router.post("/roll/task_result")
async def task_result(request: Request, body: Poll | None = None) -> JSONResponse:
    job = (body.reward_request_id if body is not None else "") or request.query_params.get("reward_request_id", "")
    visit = Visit(request, DIALECT.deadline_s)
    try:
        status = await visit.services.ledger.status(job, request.state.tenant, START, WAIT_S)
        if _may_pass(status) and await visit.services.ledger.again(job, request.state.tenant):
            return JSONResponse(_result(PENDING, "pending", None))
    except NotFound as error:
        return JSONResponse(_result(UNKNOWN, error.detail, None))
    return JSONResponse(_of(status))


def _may_pass(status: JobStatus) -> bool:
    """Whether a task ended without its reward for a reason that another try may mend."""
    if status.error is not None:
        return status.error.retryable
    if status.answer is None:
        return False
    parts = status.answer["results"][0]["completions"][0]["components"].values()
    return any(part["error"] is not None and part["error"]["retryable"] for part in parts)


def _of(status: JobStatus) -> dict[str, Any]:
    if status.state == "running":
        return _result(PENDING, "pending", None)
    if status.answer is None:
        return _result(NO_REWARD, status.error.detail if status.error is not None else status.state, None)
    one = status.answer["results"][0]["completions"][0]
    if one["reward"] is None:
        return _result(NO_REWARD, one["status"], None)
    return _result(0, "", one["reward"])


def _result(errcode: int, errmsg: str, reward: float | None) -> dict[str, Any]:
    now = datetime.fromtimestamp(now_ms() / 1000, UTC).isoformat()
    return {
        "errcode": errcode,
        "errmsg": errmsg,
        "reward_score": reward,
        "dimention_reward_score": {},
        "start_time": now,
        "end_time": now,
    }
