"""An API process whose service is scripted: everything from the socket to the service is real, nothing behind it is.

A script says what the next calls of the service come to; its last word holds for all that follow. A word is an error to
raise, or a function from what was asked to its answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import types
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import uvicorn
from fastapi import FastAPI

from plaudit.errors import BrokerUnavailable, PlauditError
from plaudit.grading import Verdict
from plaudit.schemas import (
    CompletionReward,
    CompletionScore,
    Component,
    ExecuteAnswer,
    ExecuteRequest,
    ExecuteResult,
    GroupStatistics,
    JobStatus,
    LanguageInfo,
    ModelInfo,
    ModelRef,
    ProgramResult,
    ResultError,
    RewardAnswer,
    RewardRequest,
    RewardResult,
    ScoreAnswer,
    ScoreRequest,
    ScoreResult,
    TestResult,
    Timing,
)
from sandbox.types import Output, Report, TestReport
from service.api import error_handlers
from service.api.compat import registry
from service.api.dispatch.request_context import RequestContext
from service.api.error_handlers import problem_document
from service.api.handlers.operations import perform_stored
from service.api.handlers.run import RunRequest, RunResult
from service.api.handlers.validation import RequestValidator
from service.api.middleware import Drain, RequestMiddleware
from service.api.routes import native_router, native_routes
from service.api.stores.activity import Activity
from service.api.stores.durable_requests import DurableRequest
from service.queue.protocol import now_ms
from service.settings import Settings

Word = PlauditError | str | Callable[[Any], Any]
MODEL = ModelInfo(
    name="default",
    revision="sha256:0",
    architecture="tiny",
    dtype="float32",
    parameters=1,
    max_length=64,
    calibrated=False,
    parity={},
    workers=1,
)


class ScriptedFleet:
    """A deployment with one model and Python."""

    broker = True
    toolchain = "toolchain"
    models = {"default": MODEL}  # noqa: RUF012
    languages = [LanguageInfo(name="python", version="3", aliases=["python3"], kinds=["stdio"])]  # noqa: RUF012

    def of_kind(self, kind: str) -> list[str]:
        return ["one"]


class ScriptedService:
    """Answers by the script. `calls` is what it was asked, `until_ms` by when."""

    def __init__(self, validator: RequestValidator) -> None:
        self.validator = validator
        self.script: list[Word] = ["ok"]
        self.calls: list[Any] = []
        self.until_ms: list[int] = []

    async def _word(self, asked: Any, context: RequestContext) -> Any:
        self.calls.append(asked)
        self.until_ms.append(context.deadline_ms)
        word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(word, PlauditError):
            raise word
        if word == "timeout_queue":
            await asyncio.sleep(max(0.0, context.left_s))
        return word

    async def run(self, run_requests: Sequence[RunRequest], context: RequestContext) -> list[RunResult]:
        self.validator.check_runs(run_requests)
        word = await self._word(run_requests, context)
        if isinstance(word, str) and word != "ok":
            return [RunResult(word, problem=_problem(word)) for _ in run_requests]  # type: ignore[arg-type]
        return [word(order) if callable(word) else ran(_printed(order)) for order in run_requests]

    async def execute(self, request: ExecuteRequest, context: RequestContext) -> ExecuteAnswer:
        self.validator.check_execute(request)
        word = await self._word(request, context)
        good = ProgramResult(
            status="ok",
            verdict=Verdict.PASSED,
            passed=1,
            total=1,
            pass_rate=1.0,
            trainable=True,
            tests=[TestResult(verdict=Verdict.PASSED)],
        )
        bad = ProgramResult(status=word, trainable=False, error=_problem(word)) if isinstance(word, str) else good
        results = [
            ExecuteResult(programs=[good if word == "ok" else bad for _ in item.programs]) for item in request.items
        ]
        return ExecuteAnswer(request_id="r", status="complete", results=results, timing=Timing())

    async def score(
        self, request: ScoreRequest, context: RequestContext, *, whole_texts: bool = False, truncation: Any = None
    ) -> ScoreAnswer:
        self.validator.check_score(request)
        word = await self._word(request, context)
        good = CompletionScore(status="ok", score=0.5, tokens=3, trainable=True)
        bad = CompletionScore(status=word, trainable=False, error=_problem(word)) if isinstance(word, str) else good
        results = [
            ScoreResult(completions=[good if word == "ok" else bad for _ in item.completions]) for item in request.items
        ]
        return ScoreAnswer(
            request_id="r", status="complete", model=ModelRef(name="default"), results=results, timing=Timing()
        )

    async def reward(self, request: RewardRequest, context: RequestContext) -> RewardAnswer:
        self.validator.check_reward(request)
        word = await self._word(request, context)
        if callable(word):
            answer: RewardAnswer = word(request)
            return answer
        part = Component(status="ok", value=1.0) if word == "ok" else Component(status=word, error=_problem(word))
        one = CompletionReward(status=word, reward=part.value, trainable=word == "ok", components={"tests": part})
        group = GroupStatistics(n=1, n_ok=int(word == "ok"), degenerate=True)
        results = [RewardResult(completions=[one for _ in item.completions], group=group) for item in request.items]
        return RewardAnswer(request_id="r", status="complete", results=results, timing=Timing())


def _printed(order: RunRequest) -> bytes:
    """What `print(1)` prints, and what a notebook tells of the cell `1`."""
    cell = b'{"stdout": "", "stderr": "", "display": [{"text/plain": "1"}], "error": []}\n'
    return cell if any(name == "cells.json" for name, _ in order.files) else b"1\n"


def _problem(word: str) -> ResultError:
    codes = {"infra_error": "poisoned", "timeout_queue": "deadline"}
    return ResultError(code=codes.get(word, word), detail="by the script", retryable=word == "timeout_queue")


def ran(stdout: bytes, exit_code: int = 0) -> RunResult:
    """A run that printed this."""
    verdict = Verdict.PASSED if exit_code == 0 else Verdict.RUNTIME_ERROR
    report = Report(
        verdict,
        int(exit_code == 0),
        1,
        (TestReport(verdict),),
        "bytes",
        "strong",
        output=Output(exit_code, None, stdout, b"", {}),
    )
    return RunResult("ok", report)


class ScriptedDurableRequests:
    """Durable requests, performed when they are waited for, and forgotten."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.started: dict[str, tuple[str, bytes, str, int]] = {}

    def of(self, job: str) -> ScriptedDurableRequests:
        return self

    async def start(
        self, job: str, route: str, body: bytes, tenant: str, until_ms: int, items: int, *, brief: bool = False
    ) -> None:
        if isinstance(gone := self.service.script[0], BrokerUnavailable):
            raise gone  # what is durable is in Redis
        self.started[job] = (route, body, tenant, until_ms)

    async def wait(self, job: str, tenant: str) -> DurableRequest:
        route, body, owner, until_ms = self.started.pop(job)
        context = RequestContext(job, until_ms, tenant=owner)
        answer = await perform_stored(self.service, route, body, context)
        return DurableRequest("done", 1, "scripted", answer, None)

    async def status(self, job: str, tenant: str, cursor: str, wait_s: float) -> JobStatus:
        started = self.started[job]
        try:
            answer, problem = (await self.wait(job, tenant)).answer, None
        except PlauditError as error:
            answer, problem = None, problem_document(error, job)
        self.started[job] = started
        return JobStatus(
            job_id=job,
            state="failed" if problem else "done",
            cursor="0-1",
            items=[],
            total=1,
            answer=answer,
            error=problem,
        )

    async def run_again(self, job: str, tenant: str) -> bool:
        """Whether there is time left: what has ended is performed whenever it is asked for."""
        return now_ms() < self.started[job][3]


class ScriptedReplays:
    """Nothing that was judged can be shown again."""

    def alias(self, tenant: str, request_id: str, job: str) -> None:
        assert request_id != job


NO_SHARDS: Any = types.SimpleNamespace(queue_of=lambda _: None)


class ScriptedState:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.fleet: Any = ScriptedFleet()
        self.validator = RequestValidator(settings)
        self.reward_service: Any = ScriptedService(self.validator)
        self.durable_requests = ScriptedDurableRequests(self.reward_service)
        self.replays = ScriptedReplays()
        self.activity = Activity(NO_SHARDS, [], dict)  # remembers requests, and is never written


class Scripted:
    """A context manager: the server runs in a thread of its own on a free port of the loopback interface."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.state = ScriptedState(self.settings)
        app = FastAPI()
        app.state.plaudit = self.state
        app.include_router(native_router())
        registry.install(app, self.settings.dialects_off)
        error_handlers.install(app)
        routes = [
            *native_routes(),
            *(route for dialect in registry.DIALECTS.values() for route in dialect.router.routes),
        ]
        app.add_middleware(RequestMiddleware, settings=self.settings, drain=Drain(), routes=routes)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", access_log=False))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.sock]}, daemon=True)

    def says(self, *words: Word) -> ScriptedService:
        """Begin a new script; returns the service, which records what it is asked from now on."""
        service: ScriptedService = self.state.reward_service
        service.script, service.calls, service.until_ms = list(words), [], []
        return service

    def __enter__(self) -> Scripted:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.sock.close()
