"""What all dialects share: an entry in the table, loose requests, a visit to the desk, and each client's word for "come
back".

A dialect's client brings no deadline, so its entry has one, below the client's own timeout and from the moment of
arrival. Whatever of our own misfortunes another try may mend goes out under the one status that makes this client try
again (`sheds`), with Retry-After; the caller's mistakes keep their own status. What a *program* does wrong never comes
this way: it is an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict

from plaudit.errors import InfraError, Invalid, PlauditError, Poisoned, WouldMissDeadline
from plaudit.schemas import (
    ExecuteAnswer,
    ExecuteRequest,
    LimitsSpec,
    ProgramResult,
    ResultError,
    ScoreAnswer,
    ScoreRequest,
    Status,
)
from sandbox.types import Report
from service.api.dispatch.disconnect import while_connected
from service.api.dispatch.request_context import Context, deadline
from service.api.error_handlers import problem_of, respond
from service.api.handlers.run import Order
from service.api.state import Services

T = TypeVar("T")
PAUSE_S = (0.2, 5.0)  # between our own tries, where a dialect waits inside
OUTPUT_KB = 4096  # a program of a chatty model is judged by its answers, not by its noise
MARGIN_S = 0.5  # left for writing the answer


def _scrubbed(text: str) -> str:
    """JSON may spell halves of surrogate pairs, which no encoding can write; they become question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


Text = Annotated[str, AfterValidator(_scrubbed)]


class Loose(BaseModel):
    """A request of somebody else's protocol: fields that we do not know are none of our business."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True)
class Dialect:
    """An entry of the table. `sheds` None: its clients cannot take a refusal, so the handlers wait or say it inside."""

    name: str
    clients: str
    deadline_s: float
    sheds: int | None
    router: APIRouter = field(init=False)

    def __post_init__(self) -> None:
        router = APIRouter(route_class=_route_class(self.sheds), include_in_schema=False)
        object.__setattr__(self, "router", router)


def _route_class(sheds: int | None) -> type[APIRoute]:
    class Shedding(APIRoute):
        """A route whose retryable misfortunes go out under the client's own status."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def shedding(request: Request) -> Response:
                request.state.sheds = sheds
                try:
                    return await handler(request)
                except PlauditError as error:
                    if sheds is None or not error.retryable:
                        raise
                    problem = problem_of(error, request.state.request_id)
                    return respond(problem.model_copy(update={"status": sheds}))

            return shedding

    return Shedding


class Visit:
    """One client's call at the desk: everything asked through it shares the deadline and ends with the connection."""

    def __init__(self, request: Request, deadline_s: float) -> None:
        self.request = request
        self.services = cast(Services, request.app.state.services)
        header = request.headers.get("x-deadline-ms")
        self.until_ms = deadline(self.services.settings, int(deadline_s * 1000), header)

    async def run(self, order: Order) -> Report:
        """Run one program. Raises what stood in the way."""
        (ran,) = await self._ask(lambda context: self.services.desk.run([order], context))
        raise_for(ran.status, ran.problem)
        assert ran.report is not None
        return ran.report

    async def execute(self, body: ExecuteRequest) -> ExecuteAnswer:
        return await self._ask(lambda context: self.services.desk.execute(body, context))

    async def score(self, body: ScoreRequest) -> ScoreAnswer:
        return await self._ask(lambda context: self.services.desk.score(body, context))

    async def _ask(self, ask: Callable[[Context], Awaitable[T]]) -> T:
        state = self.request.state
        context = Context(state.request_id, self.until_ms, tenant=state.tenant)
        try:
            return await ask(context)
        finally:
            state.queue_ms = max(state.queue_ms, context.queue_ms)
            state.compute_ms += context.compute_ms

    async def alive(self, work: Awaitable[T]) -> T:
        """The whole of a handler's work, ended when the client hangs up."""
        return await while_connected(self.request, work)

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Try until it works or the deadline is near, then raise what stood in the way."""
        loop = asyncio.get_running_loop()
        left_s = Context("", self.until_ms).left_s - MARGIN_S
        until = loop.time() + left_s
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await ask()
            except TimeoutError:
                raise WouldMissDeadline(f"not done after {left_s:.0f} s") from None
            except PlauditError as error:
                pause = min(PAUSE_S[1], max(PAUSE_S[0], error.retry_after_s or 0.0))
                if not error.retryable or loop.time() + pause >= until:
                    raise
            await asyncio.sleep(pause)

    def model(self, asked: str | None) -> str:
        """The model that a client means: clients send paths and hub ids of their own, and mostly one is served."""
        served = self.services.fleet.models
        if asked is not None and asked in served:
            return asked
        if asked in (None, "") or len(served) == 1:
            return "default" if "default" in served or not served else next(iter(served))
        return asked or "default"

    def limits(
        self,
        cpu_s: float = 5.0,
        memory_mb: int | None = None,
        *,
        wall_s: float | None = None,
        output_kb: int = OUTPUT_KB,
    ) -> LimitsSpec:
        """What a client wishes, within what this deployment allows. No client's number is an error here."""
        settings = self.services.settings
        wished = {
            "cpu_s": min(max(cpu_s, 0.1), settings.max_cpu_s),
            "wall_s": None if wall_s is None else min(max(wall_s, 0.2), settings.max_wall_s),
            "memory_mb": min(max(memory_mb or 1024, 16), settings.max_memory_mb),
            "output_kb": min(max(output_kb, 1), settings.max_output_kb),
        }
        return LimitsSpec.model_validate(wished)


def raise_for(status: Status, problem: ResultError | None) -> None:
    """Raise what a status other than "ok" means for a whole request."""
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
    """A program's result that says how the program fared. Raises what its status means elsewhere."""
    raise_for(program.status, program.error)
    return program
