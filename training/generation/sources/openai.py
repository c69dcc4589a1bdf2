"""Completions from any server that speaks OpenAI's `/chat/completions` or `/completions`; vLLM is the one we document.

- As many requests are in flight as the recipe says, on kept connections.
- Retries are those of plaudit's own client: `Retry-After` is obeyed; 429, 5xx and broken connections are tried again
  with jitter, within one time limit per request.
- A server that gives fewer choices than `n` (some give only 1) is sent another request for the rest.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Self

from plaudit.client import Client
from plaudit.errors import InfraError
from plaudit.retries import RetryPolicy, send_with_retries
from training.generation.sources.base import CompletionReply, CompletionRequest
from training.pipeline import config

RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class OpenAISource:
    """Threads over one pooled client; `replies` keeps `concurrency` requests in flight and no more in memory."""

    def __init__(self, settings: config.SourceConfig, api_key: str | None = None) -> None:
        self.settings = settings
        self._policy = RetryPolicy(settings.timeout_s, settings.max_tries)
        self._client = Client(settings.url, api_key, max_connections=settings.concurrency)
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="source")

    @property
    def name(self) -> str:
        return f"{self.settings.model} T={self.settings.temperature:g} p={self.settings.top_p:g}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def replies(self, requests: Iterable[CompletionRequest]) -> Iterator[CompletionReply]:
        to_send = iter(requests)
        running: set[Future[CompletionReply]] = set()
        done: deque[Future[CompletionReply]] = deque()
        try:
            while True:
                running |= {
                    self._threads.submit(self._reply, request)
                    for request in islice(to_send, self.settings.concurrency - len(running))
                }
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                done.extend(finished)
                while done:
                    yield done.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def _reply(self, request: CompletionRequest) -> CompletionReply:
        texts: list[str] = []
        endings: list[str] = []
        tokens = [0, 0]
        while len(texts) < request.n:
            body = self._body(request, request.n - len(texts), request.seed + len(texts))
            choices, usage = self._post(body)
            texts += [text for text, _ in choices]
            endings += [ending for _, ending in choices]
            tokens = [tokens[0] + usage[0], tokens[1] + usage[1]]
        return CompletionReply(request.key, tuple(texts[: request.n]), tuple(endings[: request.n]), *tokens)

    def _body(self, request: CompletionRequest, n: int, seed: int) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {
            "model": settings.model,
            "n": n,
            "seed": seed,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
        }
        if stop := (*settings.stop, *request.stop):
            body["stop"] = list(stop)
        if isinstance(request.prompt, str):
            return body | {"prompt": request.prompt}
        messages = [{"role": role, "content": content} for role, content in request.prompt]
        if settings.json_mode:
            body["response_format"] = {"type": "json_object"}
        return body | {"messages": messages}

    def _post(self, body: dict[str, Any]) -> tuple[list[tuple[str, str]], tuple[int, int]]:
        path = "/completions" if "prompt" in body else "/chat/completions"
        headers = {"Content-Type": "application/json"}
        steps = send_with_retries("POST", path, headers, json.dumps(body).encode(), self._policy, retryable=RETRYABLE)
        response = self._client.run(steps)
        try:
            answer = response.json()
            choices = [
                (
                    choice["text"] if "prompt" in body else choice["message"]["content"] or "",
                    str(choice.get("finish_reason") or "stop"),
                )
                for choice in answer["choices"]
            ]
            usage = answer.get("usage") or {}
            counts = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InfraError(f"{path}: the answer is not of OpenAI's form: {response.text[:200]!r}") from error
        if not choices:
            raise InfraError(f"{path}: the answer is without a choice")
        return choices, counts
