"""Asks an OpenAI-compatible server, many requests at a time, and counts what that costs.

- A request that fails in a way that may pass (no connection, 408, 409, 429, 5xx) is tried again, with the pause that
  the server names.
- An answer is remembered for a while, so that a job that is tried again asks only what was not answered.
- What cannot be used raises a `JudgeFailure` with a code. There is no answer in its place.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from plaudit.errors import HostLacks
from service import metrics
from service.scoring.judge.spec import JudgeSpec, TokenProbability
from service.settings import is_loopback

CONNECT_S = 5.0
MAX_TRIES = 3
MIN_PAUSE_S, MAX_PAUSE_S = 0.25, 10.0
MAY_PASS = frozenset({408, 409, 425, 429})
NOT_LET_IN = frozenset(
    {301, 302, 303, 307, 308, 401, 402, 403, 404, 405}
)  # elsewhere, no key, no credit, no such model
NO_LOGPROB = -9000.0  # servers write -9999 for a token that cannot be
TOP_LOGPROBS = 20  # the most that OpenAI's API gives
MAX_REMEMBERED = 4096

Messages = list[dict[str, str]]


class JudgeFailure(Exception):
    """Why a judge gave no answer that can be used.

    Attributes:
        code: `judge_unavailable`, `judge_refused` (key, model or method), `judge_rejected` (the input), or
            `judge_unreadable` (the answer).
        is_server_error: whether the job fails; otherwise this completion alone has no score.
    """

    def __init__(self, code: str, detail: str, *, is_server_error: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.is_server_error = is_server_error


class _Token(msgspec.Struct):
    token: str
    logprob: float


class _Position(_Token):
    top_logprobs: list[_Token] = []


class _Logprobs(msgspec.Struct):
    content: list[_Position] | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatAnswer(msgspec.Struct):
    """The part of the server's answer that is read."""

    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """What the judge said.

    Attributes:
        text: its answer.
        was_cut: whether the answer ended at its longest length, or by a filter of the server's.
        logprobs: the tokens that the first one could have been, with theirs; None if they were not asked for. Two
            tokens may have the same text.
        tokens: that the request cost, prompt and answer.
    """

    text: str
    was_cut: bool
    logprobs: list[tuple[str, float]] | None
    tokens: int


class JudgeClient:
    """One judge's server. Safe to use from several threads."""

    def __init__(self, name: str, spec: JudgeSpec) -> None:
        self.spec = spec
        self._name = name
        self._threads = ThreadPoolExecutor(spec.concurrency, f"judge-{name}")
        host = httpx.URL(spec.url).host
        self._http = httpx.Client(
            base_url=spec.url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"} if (key := _key(spec)) else {},
            limits=httpx.Limits(max_connections=spec.concurrency, max_keepalive_connections=spec.concurrency),
            timeout=httpx.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s)),
            trust_env=not is_loopback(host),
        )
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, Future[JudgeAnswer]] = OrderedDict()

    def ask(self, messages: Messages) -> Future[JudgeAnswer]:
        """The answer, once it is there; equal questions are asked once."""
        body = msgspec.json.encode(self._body(messages))
        with self._lock:
            known = self._remembered.get(body)
            if known is not None and not (known.done() and known.exception() is not None):
                self._remembered.move_to_end(body)
                return known
            answer = self._threads.submit(self._answered, body)
            self._remembered[body] = answer
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
            return answer

    def _body(self, messages: Messages) -> dict[str, Any]:
        spec = self.spec
        body: dict[str, Any] = {"model": spec.model, "messages": messages, "temperature": 0, "n": 1, **spec.request}
        most = "max_completion_tokens" if "max_completion_tokens" in spec.request else "max_tokens"
        if isinstance(spec.method, TokenProbability):
            return body | {most: 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return body | {most: spec.max_answer_tokens}

    def _answered(self, body: bytes) -> JudgeAnswer:
        for attempt in range(1, MAX_TRIES + 1):
            try:
                answer = self._try(body)
            except JudgeFailure as error:
                metrics.judge_requests.labels(self._name, error.code).inc()
                if error.code != "judge_unavailable" or attempt == MAX_TRIES:
                    raise
                time.sleep(min(MAX_PAUSE_S, max(MIN_PAUSE_S * 2**attempt, getattr(error, "retry_after_s", 0.0))))
            else:
                metrics.judge_requests.labels(self._name, "ok").inc()
                return answer
        raise AssertionError("the last try returns or raises")

    def _try(self, body: bytes) -> JudgeAnswer:
        try:
            response = self._http.post("/chat/completions", content=body, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            raise self._unavailable(f"does not answer: {str(error) or type(error).__name__}") from error
        status, said = response.status_code, response.text[:300]
        if status in MAY_PASS or status >= 500:
            failure = self._unavailable(f"answers {status}: {said}")
            failure.retry_after_s = _seconds(response.headers.get("retry-after", ""))  # type: ignore[attr-defined]
            raise failure
        if status in NOT_LET_IN:
            raise JudgeFailure(
                "judge_refused",
                f"{self.spec.url} answers {status} (address, key, credit or model?): {said}",
                is_server_error=True,
            )
        if status != httpx.codes.OK:
            raise JudgeFailure(
                "judge_rejected", f"the judge's server rejects the input with {status}: {said}", is_server_error=False
            )
        try:
            answer = msgspec.json.decode(response.content, type=_ChatAnswer)
            choice = answer.choices[0]
        except (msgspec.MsgspecError, IndexError) as error:
            raise self._unavailable(f"does not answer as OpenAI's API does: {error}") from error
        usage = answer.usage or _Usage()
        metrics.judge_tokens.labels(self._name, "prompt").inc(usage.prompt_tokens)
        metrics.judge_tokens.labels(self._name, "completion").inc(usage.completion_tokens)
        logprobs = self._logprobs(choice) if isinstance(self.spec.method, TokenProbability) else None
        return JudgeAnswer(
            choice.message.content or "",
            choice.finish_reason in ("length", "content_filter"),
            logprobs,
            usage.prompt_tokens + usage.completion_tokens,
        )

    def _logprobs(self, choice: _Choice) -> list[tuple[str, float]]:
        if choice.logprobs is None or not choice.logprobs.content:
            raise JudgeFailure(
                "judge_refused",
                f"{self.spec.url} gives no logprobs, which a method of type 'token_probability' needs",
                is_server_error=True,
            )
        first = choice.logprobs.content[0]
        listed = [(one.token, one.logprob) for one in first.top_logprobs if one.logprob > NO_LOGPROB]
        # The token that was said may be listed with another number: rounded, or from before the temperature.
        is_listed = any(token == first.token for token, _ in listed)
        return listed if is_listed or first.logprob <= NO_LOGPROB else [(first.token, first.logprob), *listed]

    def _unavailable(self, what: str) -> JudgeFailure:
        return JudgeFailure("judge_unavailable", f"the judge's server {self.spec.url} {what}", is_server_error=True)

    def close(self) -> None:
        """Give up what is not answered, and close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.close()


def _key(spec: JudgeSpec) -> str | None:
    """The server's key. Raises `HostLacks` if its variable is not set."""
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise HostLacks(f"the environment variable {spec.api_key_env}, which holds the key of {spec.url}, is not set")
    return key


def _seconds(text: str) -> float:
    """A Retry-After in seconds; 0 for none, or for a date."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
