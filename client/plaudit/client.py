"""The client library: typed calls, one deadline over all tries, and the server's errors as the classes they were there.

What a call does is decided once, without I/O: `calls` yields what to send and how long to wait (`tries`). Two small
drivers carry that out, `Client` by blocking and `AsyncClient` by awaiting. Needs httpx and pydantic, nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from plaudit.calls import Best, Calls, News, Part, Request
from plaudit.retries import Outcome, Patience, Send, Steps, Unreachable

__all__ = ["AsyncClient", "Best", "Client", "Part", "Unreachable"]

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(call: Callable[Concatenate[Calls, P], Steps[T]]) -> Callable[Concatenate[Client, P], T]:
    @functools.wraps(call)
    def run(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.run(call(client.calls, *args, **kwargs))

    return run


def _awaiting(call: Callable[Concatenate[Calls, P], Steps[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @functools.wraps(call)
    def run(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return client.run(call(client.calls, *args, **kwargs))

    return run


def _http_options(url: str, api_key: str | None, max_connections: int) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return {"base_url": url, "headers": headers, "limits": limits}


class Client:
    """Blocking, with pooled connections, safe to share between threads. A context manager.

    A call takes `timeout_s` over all its tries unless its request brings a `deadline_ms`.
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
        self.calls = Calls(Patience(timeout_s, max_tries))
        self._http = httpx.Client(**_http_options(url, api_key, max_connections))

    def run(self, steps: Steps[T]) -> T:
        """Carry out a call's steps."""
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            outcome = None
            if isinstance(step, float):
                time.sleep(step)
                continue
            try:
                outcome = self._http.request(
                    step.method, step.path, headers=step.headers, content=step.body, timeout=step.timeout_s
                )
            except httpx.TransportError as error:
                outcome = error

    def stream(self, request: Request, /, *, timeout_s: float = 3600.0) -> Iterator[Part]:
        """Items of a request as they are done, in that order. Who stops listening cancels the rest."""
        until = time.monotonic() + timeout_s
        accepted = self.submit(request)
        news = News([], None, done=False)
        try:
            while not news.done:
                news = self.run(self.calls.news(request, accepted, news.cursor, until))
                yield from news.parts
        finally:
            if not news.done:
                self.cancel(accepted.job_id)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    score = _blocking(Calls.score)
    execute = _blocking(Calls.execute)
    reward = _blocking(Calls.reward)
    rank = _blocking(Calls.rank)
    best_of_n = _blocking(Calls.best_of_n)
    submit = _blocking(Calls.submit)
    job = _blocking(Calls.job)
    wait = _blocking(Calls.wait)
    cancel = _blocking(Calls.cancel)
    models = _blocking(Calls.models)
    activate = _blocking(Calls.activate)
    put_testset = _blocking(Calls.put_testset)
    replay = _blocking(Calls.replay)
    languages = _blocking(Calls.languages)
    info = _blocking(Calls.info)
    health = _blocking(Calls.health)
    ready = _blocking(Calls.ready)


class AsyncClient:
    """The same calls, awaited; for one event loop. An async context manager."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 120.0,
        max_tries: int = 6,
        max_connections: int = 64,
    ) -> None:
        self.calls = Calls(Patience(timeout_s, max_tries))
        self._http = httpx.AsyncClient(**_http_options(url, api_key, max_connections))
        self._turns = asyncio.Semaphore(max_connections)

    async def run(self, steps: Steps[T]) -> T:
        """Carry out a call's steps."""
        outcome: Outcome = None
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

    async def _send(self, step: Send) -> Outcome:
        """One try. Its turn is waited for here, since httpx's pool looks at all that wait whenever one is answered."""
        try:
            async with asyncio.timeout(step.timeout_s), self._turns:
                return await self._http.request(
                    step.method, step.path, headers=step.headers, content=step.body, timeout=step.timeout_s
                )
        except TimeoutError:
            return httpx.ReadTimeout(f"no answer in {step.timeout_s:.0f} s")
        except httpx.TransportError as error:
            return error

    async def stream(self, request: Request, /, *, timeout_s: float = 3600.0) -> AsyncIterator[Part]:
        """Items of a request as they are done, in that order. Who stops listening (`aclosing`) cancels the rest."""
        until = time.monotonic() + timeout_s
        accepted = await self.submit(request)
        news = News([], None, done=False)
        try:
            while not news.done:
                news = await self.run(self.calls.news(request, accepted, news.cursor, until))
                for part in news.parts:
                    yield part
        finally:
            if not news.done:
                await self.cancel(accepted.job_id)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    score = _awaiting(Calls.score)
    execute = _awaiting(Calls.execute)
    reward = _awaiting(Calls.reward)
    rank = _awaiting(Calls.rank)
    best_of_n = _awaiting(Calls.best_of_n)
    submit = _awaiting(Calls.submit)
    job = _awaiting(Calls.job)
    wait = _awaiting(Calls.wait)
    cancel = _awaiting(Calls.cancel)
    models = _awaiting(Calls.models)
    activate = _awaiting(Calls.activate)
    put_testset = _awaiting(Calls.put_testset)
    replay = _awaiting(Calls.replay)
    languages = _awaiting(Calls.languages)
    info = _awaiting(Calls.info)
    health = _awaiting(Calls.health)
    ready = _awaiting(Calls.ready)
