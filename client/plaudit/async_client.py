"""`AsyncClient`: the calls of `plaudit.client.Client`, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx
from pydantic import BaseModel

from plaudit.calls import (
    BestOfN,
    BestOptions,
    Calls,
    ExecuteOptions,
    Items,
    JobUpdate,
    RankOptions,
    Request,
    RewardOptions,
    ScoreOptions,
    StreamedItem,
)
from plaudit.retries import Attempt, AttemptOutcome, CallSteps, RetryPolicy
from plaudit.schemas import (
    ActivateAnswer,
    AuditAnswer,
    AuditItem,
    AuditRequest,
    ExecuteAnswer,
    ExecuteItem,
    ExecuteRequest,
    Health,
    InfoAnswer,
    InlineTests,
    JobAccepted,
    JobStatus,
    LanguagesAnswer,
    Message,
    ModelsAnswer,
    RankAnswer,
    RankRequest,
    Readiness,
    ReplayAnswer,
    RewardAnswer,
    RewardItem,
    RewardRequest,
    ScoreAnswer,
    ScoreItem,
    ScoreRequest,
    TestsetAnswer,
)
from plaudit.transport import http_options, with_trace

T = TypeVar("T")


class AsyncClient:
    """`Client`'s calls, awaited; for one event loop. An async context manager. Its arguments are those of `Client`.

    Example:
        >>> async with AsyncClient("http://127.0.0.1:8000") as client:
        ...     answer = await client.score([{"prompt": "Add a and b.", "completions": ["a + b", "a - b"]}])
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 120.0,
        max_tries: int = 6,
        max_connections: int = 64,
    ) -> None:
        self.calls = Calls(RetryPolicy(timeout_s, max_tries))
        self._http = httpx.AsyncClient(**http_options(url, api_key, max_connections, httpx.AsyncHTTPTransport))
        self._connections = asyncio.Semaphore(max_connections)

    async def run(self, steps: CallSteps[T]) -> T:
        """Carry out a call's steps and return its answer."""
        outcome: AttemptOutcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            outcome = None
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            outcome = await self._send(step)

    async def _send(self, step: Attempt) -> AttemptOutcome:
        """One attempt. Waits for a connection here: httpx's pool walks through all waiting requests at each answer."""
        try:
            async with asyncio.timeout(step.timeout_s), self._connections:
                return await self._http.request(
                    step.method, step.path, headers=with_trace(step.headers), content=step.body, timeout=step.timeout_s
                )
        except TimeoutError:
            return httpx.ReadTimeout(f"no answer in {step.timeout_s:.0f} s")
        except httpx.TransportError as error:
            return error

    async def score(self, items: Items[ScoreItem] | ScoreRequest, /, **options: Unpack[ScoreOptions]) -> ScoreAnswer:
        """Score completions with a reward model: `POST /score`.

        Args, Returns, Raises and Example as in `Client.score`.
        """
        return await self.run(self.calls.score(items, **options))

    async def execute(
        self, items: Items[ExecuteItem] | ExecuteRequest, /, **options: Unpack[ExecuteOptions]
    ) -> ExecuteAnswer:
        """Run programs against tests in the sandbox: `POST /execute`.

        Args, Returns, Raises and Example as in `Client.execute`.
        """
        return await self.run(self.calls.execute(items, **options))

    async def reward(
        self, items: Items[RewardItem] | RewardRequest, /, **options: Unpack[RewardOptions]
    ) -> RewardAnswer:
        """Rewards of completions, by tests and by a model: `POST /reward`.

        Args, Returns, Raises and Example as in `Client.reward`.
        """
        return await self.run(self.calls.reward(items, **options))

    async def rank(self, items: Items[RewardItem] | RankRequest, /, **options: Unpack[RankOptions]) -> RankAnswer:
        """Order completions by reward, best first: `POST /rank`.

        Args, Returns, Raises and Example as in `Client.rank`.
        """
        return await self.run(self.calls.rank(items, **options))

    async def audit(self, items: Items[AuditItem] | AuditRequest, /, **options: Unpack[ExecuteOptions]) -> AuditAnswer:
        """Say what test suites are worth before a policy is trained on them: `POST /audit`.

        Args, Returns, Raises and Example as in `Client.audit`.
        """
        return await self.run(self.calls.audit(items, **options))

    async def best_of_n(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        completions: Sequence[str],
        tests: BaseModel | Mapping[str, Any] | None = None,
        **options: Unpack[BestOptions],
    ) -> BestOfN:
        """The best of several completions of one prompt.

        Args, Returns, Raises and Example as in `Client.best_of_n`.
        """
        return await self.run(self.calls.best_of_n(prompt, completions, tests, **options))

    async def stream(self, request: Request, /, *, timeout_s: float = 3600.0) -> AsyncIterator[StreamedItem]:
        """The items of a request as they finish, in that order. Closing it early (`aclosing`) cancels the rest.

        Args, Returns, Raises and Example as in `Client.stream`.
        """
        until = time.monotonic() + timeout_s
        accepted = await self.submit(request)
        update = JobUpdate([], None, done=False)
        try:
            while not update.done:
                update = await self.run(self.calls.updates(request, accepted, update.cursor, until))
                for item in update.items:
                    yield item
        finally:
            if not update.done:
                await self.cancel(accepted.job_id)

    async def submit(self, request: Request, /) -> JobAccepted:
        """Send a whole request now and fetch its answer later, with `job` or `wait` (`Prefer: respond-async`).

        Args, Returns, Raises and Example as in `Client.submit`.
        """
        return await self.run(self.calls.submit(request))

    async def job(self, job_id: str, /, *, wait_s: float = 0.0, cursor: str | None = None) -> JobStatus:
        """A job's state, and its items that finished since `cursor`.

        Args, Returns, Raises and Example as in `Client.job`.
        """
        return await self.run(self.calls.job(job_id, wait_s=wait_s, cursor=cursor))

    async def wait(self, job_id: str, /, *, timeout_s: float = 3600.0) -> JobStatus:
        """Wait for a job to end.

        Args, Returns, Raises and Example as in `Client.wait`.
        """
        return await self.run(self.calls.wait(job_id, timeout_s=timeout_s))

    async def cancel(self, job_id: str, /) -> None:
        """Stop a job. Items that have finished keep their results.

        Args, Returns, Raises and Example as in `Client.cancel`.
        """
        await self.run(self.calls.cancel(job_id))

    async def put_testset(self, tests: InlineTests, /) -> TestsetAnswer:
        """Store a test suite, so that later requests can name it by its digest.

        Args, Returns, Raises and Example as in `Client.put_testset`.
        """
        return await self.run(self.calls.put_testset(tests))

    async def replay(self, request_id: str, /) -> ReplayAnswer:
        """The items and verdicts of an earlier request, to judge it again: `GET /requests/{id}/replay`.

        Args, Returns, Raises and Example as in `Client.replay`.
        """
        return await self.run(self.calls.replay(request_id))

    async def models(self) -> ModelsAnswer:
        """The served models: `GET /models`.

        Args, Returns, Raises and Example as in `Client.models`.
        """
        return await self.run(self.calls.models())

    async def activate(
        self, model: str, revision: str | None = None, /, *, path: str | None = None, timeout_s: float = 600.0
    ) -> ActivateAnswer:
        """Swap a served model's revision (admin key).

        Args, Returns, Raises and Example as in `Client.activate`.
        """
        return await self.run(self.calls.activate(model, revision, path=path, timeout_s=timeout_s))

    async def languages(self) -> LanguagesAnswer:
        """The languages that the executors run: `GET /languages`.

        Args, Returns, Raises and Example as in `Client.languages`.
        """
        return await self.run(self.calls.languages())

    async def info(self) -> InfoAnswer:
        """The deployment: versions, limits, isolation level, models, languages, queues: `GET /info`.

        Args, Returns, Raises and Example as in `Client.info`.
        """
        return await self.run(self.calls.info())

    async def health(self) -> Health:
        """Whether the API's process answers: `GET /health`.

        Args, Returns, Raises and Example as in `Client.health`.
        """
        return await self.run(self.calls.health())

    async def ready(self) -> Readiness:
        """Whether the deployment can work: `GET /ready`.

        Args, Returns, Raises and Example as in `Client.ready`.
        """
        return await self.run(self.calls.ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
