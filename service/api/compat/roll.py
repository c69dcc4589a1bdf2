"""ROLL's remote reward system: `submit_task`, then `task_result` (a GET with a JSON body) until it is done.

- A submitted task is a durable request, so any API process can answer for it, and the same task submitted twice is one.
- `errcode`: 0 done, 1 pending, 2 and above no reward. ROLL's worker asks five times for a task without a reward and
  then counts it as 0. So a task that failed for a reason that may pass stays pending and is run again, until its
  deadline.
- ROLL's other caller, `code_sandbox`, uses `/run_code`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.errors import NotFound
from plaudit.schemas import ExecuteTerm, JobStatus, Prompt, RewardItem, RewardRequest, RewardSpec, ScoreTerm
from service.api.compat.base import CompatCall, CompatRequest, Dialect, Text
from service.api.compat.chat import ChatTurns, to_messages
from service.api.compat.grading import GradeOptions, tests_of
from service.api.handlers.operations import REWARD
from service.api.stores.durable_requests import START, request_id_of
from service.jobs import content_hash
from service.queue.protocol import now_ms

DIALECT = Dialect("roll", "ROLL `remote_reward_system_worker`", deadline_s=300, retry_status=503)
DONE, PENDING, NO_REWARD, UNKNOWN = range(4)
WAIT_S = 1.5  # the worker asks every two seconds


class RollTask(CompatRequest):
    prompt: Text | ChatTurns
    response: Text
    reward_info: Any = None
    data_id: Any = None
    rollout_id: Any = None
    timeout: float | None = None


class TaskResultRequest(CompatRequest):
    reward_request_id: str = ""


@DIALECT.router.post("/submit_task")
@DIALECT.router.post("/roll/submit_task")
async def submit_task(request: Request, task: RollTask) -> JSONResponse:
    options = GradeOptions.of(request)
    call = CompatCall(request, min(DIALECT.deadline_s, task.timeout or DIALECT.deadline_s))
    body = _reward_request(call, task, options).model_dump_json().encode()
    call.app_state.validator.check_reward(RewardRequest.model_validate_json(body))
    tenant = request.state.tenant
    job_id = request_id_of(tenant, content_hash("roll", body))
    await call.app_state.durable_requests.of(job_id).start(job_id, REWARD.route, body, tenant, call.deadline_ms, 1)
    return JSONResponse({"errcode": DONE, "errmsg": "", "reward_request_id": job_id})


def _reward_request(call: CompatCall, task: RollTask, options: GradeOptions) -> RewardRequest:
    """A task as a rewarding request with one term: the tests, or the model."""
    tests = tests_of(task.reward_info, options, "reward_info")
    language = (tests.language if tests is not None else None) or options.language
    term = (
        ScoreTerm(name="rm", type="score", model=call.model_name(options.model), on_overflow="truncate_left")
        if tests is None
        else ExecuteTerm(name="tests", type="execute", policy=options.policy)
    )
    prompt: Prompt = ""  # a conversation that no model reads is not sent
    if isinstance(task.prompt, str):
        prompt = task.prompt
    elif tests is None:
        prompt = to_messages(task.prompt, "prompt")
    item = RewardItem(
        prompt=prompt,
        completions=[task.response],
        extract="last_fence",
        tests=None if tests is None else tests.graded(language, options),
        language=language,
        limits=call.limits(),
    )
    return RewardRequest(spec=RewardSpec(terms=[term]), items=[item])


@DIALECT.router.get("/task_result")
@DIALECT.router.get("/roll/task_result")
@DIALECT.router.post("/task_result")
@DIALECT.router.post("/roll/task_result")
async def task_result(request: Request, body: TaskResultRequest | None = None) -> JSONResponse:
    job_id = (body.reward_request_id if body is not None else "") or request.query_params.get("reward_request_id", "")
    call, tenant = CompatCall(request, DIALECT.deadline_s), request.state.tenant
    try:
        status = await call.app_state.durable_requests.of(job_id).status(job_id, tenant, START, WAIT_S)
        if _may_pass(status) and await call.app_state.durable_requests.of(job_id).run_again(job_id, tenant):
            return JSONResponse(_result(PENDING, "pending", None))
    except NotFound as error:
        return JSONResponse(_result(UNKNOWN, error.detail, None))
    return JSONResponse(_result_of(status))


def _may_pass(status: JobStatus) -> bool:
    """Whether a task ended without its reward for a reason that a retry can mend."""
    if status.error is not None:
        return status.error.retryable
    if status.answer is None:
        return False
    components = status.answer["results"][0]["completions"][0]["components"].values()
    return any(component["error"] is not None and component["error"]["retryable"] for component in components)


def _result_of(status: JobStatus) -> dict[str, Any]:
    if status.state == "running":
        return _result(PENDING, "pending", None)
    if status.answer is None:
        return _result(NO_REWARD, status.error.detail if status.error is not None else status.state, None)
    completion = status.answer["results"][0]["completions"][0]
    if completion["reward"] is None:
        return _result(NO_REWARD, completion["status"], None)
    return _result(DONE, "", completion["reward"])


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
