"""What all dialects share: the dialect itself, lenient requests, a call of the service, and retries.

A dialect is the set of compatibility endpoints that one protocol's clients use.

- Its clients send no deadline. So a dialect has one, counted from arrival and shorter than its clients' own timeout.
- A server error that a retry can mend is answered with the one status that makes these clients retry (`retry_status`)
  and with Retry-After. A client error keeps its own status.
- What a program does wrong never comes this way: it is an answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from plaudit.errors import InfraError, Invalid, PlauditError, Poisoned, WouldMissDeadline
from plaudit.schemas import (
    CompletionScore,
    ExecuteItem,
    ExecuteRequest,
    LimitsSpec,
    ProgramResult,
    ResultError,
    ScoreItem,
    ScoreRequest,
    Status,
)
from sandbox.types import Report
from service.api.body_route import BodyRoute
from service.api.dispatch import trail
from service.api.dispatch.request_context import RequestContext, deadline
from service.api.dispatch.tasks import cancel_on_disconnect
from service.api.error_handlers import problem_document, respond
from service.api.handlers.run import RunRequest
from service.api.state import state_of
from service.jobs import OnOverflow, Truncation

Answered = TypeVar("Answered")

MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0  # between our own tries, where a dialect waits inside
OUTPUT_KB = 4096  # large, so that a program is judged by its answers and not by what else it prints
MARGIN_S = 0.5  # left for writing the answer


def _as_utf8(text: str) -> str:
    """JSON can spell halves of surrogate pairs, which no encoding can write; they become question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


Entry = TypeVar("Entry")
MAX_INFLATED_BYTES = 64 * 1024 * 1024
Text = Annotated[str, AfterValidator(_as_utf8)]
FailFastList = Annotated[list[Entry], Field(fail_fast=True)]  # one error for all its entries


class CompatRequest(BaseModel):
    """A request of another project's protocol. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Dialect:
    """An entry of the registry.

    Args:
        name: in the setting `dialects_off`.
        clients: who uses it, for the docs.
        deadline_s: of a request, from its arrival.
        retry_status: the HTTP status of server errors that a retry can mend. None where a client cannot take an error:
            then the handlers wait inside, or say it in the answer.
    """

    def __init__(self, name: str, clients: str, *, deadline_s: float, retry_status: int | None) -> None:
        self.name = name
        self.clients = clients
        self.deadline_s = deadline_s
        self.retry_status = retry_status
        self.router = APIRouter(route_class=_route_class(retry_status), tags=[name])


def _route_class(retry_status: int | None) -> type[APIRoute]:
    class CompatRoute(BodyRoute):
        """A route that answers retryable errors with the dialect's own status."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def with_retry_status(request: Request) -> Response:
                request.state.retry_status = retry_status  # the middleware uses it for unexpected errors
                try:
                    return await handler(request)
                except PlauditError as error:
                    if retry_status is None or not error.retryable:
                        raise
                    problem = problem_document(error, request.state.request_id)
                    return respond(problem.model_copy(update={"status": retry_status}))

            return with_retry_status

    return CompatRoute


class CompatCall:
    """One client's request. Everything done through it shares the deadline and ends with the connection."""

    def __init__(self, request: Request, deadline_s: float) -> None:
        self.request = request
        self.app_state = state_of(request)
        header = request.headers.get("x-deadline-ms")
        self.deadline_ms = deadline(self.app_state.settings, int(deadline_s * 1000), header)

    async def run(self, run_request: RunRequest) -> Report:
        """Run one program. Raises the error that its status stands for."""
        service = self.app_state.reward_service
        (result,) = await self._timed(lambda context: service.run([run_request], context))
        raise_for(result.status, result.problem)
        assert result.report is not None
        return result.report

    async def judge(self, item: ExecuteItem) -> ProgramResult:
        """Judge the only program of an item, whatever its status."""
        service, execute_request = self.app_state.reward_service, ExecuteRequest(items=[item])
        answer = await self._timed(lambda context: service.execute(execute_request, context))
        return answer.results[0].programs[0]

    async def score(
        self,
        model: str,
        items: Sequence[ScoreItem],
        *,
        on_overflow: OnOverflow,
        whole_texts: bool = False,
        tokenizer_digest: str | None = None,
    ) -> list[CompletionScore]:
        """Score all completions.

        Args:
            model: its name.
            items: prompts with completions, or token ids.
            on_overflow: what happens to texts that are too long.
            whole_texts: whether completions are texts of the client's own template, scored without the prompts.
            tokenizer_digest: of the token ids; None: they are taken for those of the model's own tokenizer.

        Returns:
            The scores in order.

        Raises:
            PlauditError: if one completion has no score, because these clients' answers have no gaps.
        """
        service, truncation = self.app_state.reward_service, None
        if isinstance(on_overflow, Truncation):
            truncation, on_overflow = on_overflow, "error"
        if tokenizer_digest is None and any(item.token_ids is not None for item in items):
            tokenizer_digest = self.app_state.fleet.require_model(model).tokenizer_digest
            if tokenizer_digest is None:
                raise Invalid(f"model {model!r} takes no token ids: its texts are not tokenised here; send text")
        score_request = ScoreRequest(
            model=model, items=list(items), on_overflow=on_overflow, tokenizer_digest=tokenizer_digest
        )
        answer = await self._timed(
            lambda context: service.score(score_request, context, whole_texts=whole_texts, truncation=truncation)
        )
        scores = [score for result in answer.results for score in result.completions]
        for score in scores:
            raise_for(score.status, score.error)
        return scores

    async def _timed(self, work: Callable[[RequestContext], Awaitable[Answered]]) -> Answered:
        """Do it, and add its times to those of the HTTP request."""
        state = self.request.state
        trail.current().stage("read")
        context = RequestContext(state.request_id, self.deadline_ms, tenant=state.tenant)
        try:
            return await work(context)
        finally:
            state.queue_ms = max(state.queue_ms, context.queue_ms)
            state.compute_ms += context.compute_ms

    async def while_connected(self, work: Awaitable[Answered]) -> Answered:
        """Do a handler's work; it is cancelled when the client closes the connection."""
        return await cancel_on_disconnect(self.request, work)

    async def with_retries(self, work: Callable[[], Awaitable[Answered]]) -> Answered:
        """Try until it works or the deadline is near, then raise the last error."""
        loop = asyncio.get_running_loop()
        left_s = RequestContext("", self.deadline_ms).left_s - MARGIN_S
        until = loop.time() + left_s
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await work()
            except TimeoutError:
                raise WouldMissDeadline(f"not done after {left_s:.0f} s") from None
            except PlauditError as error:
                pause_s = min(MAX_PAUSE_S, max(MIN_PAUSE_S, error.retry_after_s or 0.0))
                if not error.retryable or loop.time() + pause_s >= until:
                    raise
            await asyncio.sleep(pause_s)

    def model_name(self, requested: str | None) -> str:
        """The model that a client means. Clients send paths and hub ids of their own, and mostly one is served."""
        served = self.app_state.fleet.models
        if requested is not None and requested in served:
            return requested
        if requested in (None, "") or len(served) == 1:
            return "default" if "default" in served or not served else next(iter(served))
        return requested or "default"

    def limits(
        self,
        cpu_s: float = 5.0,
        memory_mb: int | None = None,
        *,
        wall_s: float | None = None,
        output_kb: int = OUTPUT_KB,
    ) -> LimitsSpec:
        """A client's limits, cut to what this deployment allows; none of them is an error."""
        settings = self.app_state.settings
        limits = {
            "cpu_s": min(max(cpu_s, 0.1), settings.max_cpu_s),
            "wall_s": None if wall_s is None else min(max(wall_s, 0.2), settings.max_wall_s),
            "memory_mb": min(max(memory_mb or 1024, 16), settings.max_memory_mb),
            "output_kb": min(max(output_kb, 1), settings.max_output_kb),
        }
        return LimitsSpec.model_validate(limits)


def raise_for(status: Status, problem: ResultError | None) -> None:
    """Raise the error that a status other than "ok" stands for."""
    detail = f"{problem.code}: {problem.detail}" if problem is not None else status
    if status == "timeout_queue":
        raise WouldMissDeadline(detail, retry_after_s=1.0)
    if status == "invalid":
        raise Invalid(detail)
    if status == "infra_error" and problem is not None and not problem.retryable:
        raise Poisoned(detail)
    if status != "ok":
        raise InfraError(detail, retry_after_s=1.0)


def judged(program: ProgramResult) -> ProgramResult:
    """A program's result that has a verdict. Raises the error that another status stands for."""
    raise_for(program.status, program.error)
    return program


def inflated(text: str, field: str) -> bytes:
    """What base64 of a zlib stream holds. Raises Invalid for more than `MAX_INFLATED_BYTES`, and for a broken one."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_INFLATED_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise Invalid(f"{field}: is not base64 of zlib-compressed data: {error}") from None
    if unpacker.unconsumed_tail:
        raise Invalid(f"{field}: more than {MAX_INFLATED_BYTES} bytes when decoded")
    if not unpacker.eof:
        raise Invalid(f"{field}: its zlib stream is cut off")
    return data
