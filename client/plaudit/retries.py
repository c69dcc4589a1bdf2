"""The retries of one logical call, without I/O: what to send, how long to wait, what an outcome means.

- Every logical call has one body and one idempotency key over all its attempts, so a retry joins the first attempt's
  work or gets its answer. The time left travels beside the body, as `X-Deadline-Ms`.
- A wait that the server names (Retry-After) is kept and bounded by the deadline alone.
- Failures that name no wait (no connection, a proxy's 502) count: after `max_tries` of them the error is raised.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Mapping, Set
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from pydantic import ValidationError

from plaudit.errors import BadRequest, InfraError, PlauditError, Unreachable, UsageError, by_code
from plaudit.schemas import ProblemDocument

T = TypeVar("T")

GRACE_S = 5.0  # past the deadline the server still answers, with what is done by then
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
LEAST_WAIT_S = 0.02  # where the server says "at once"
RETRYABLE = frozenset({429, 502, 503, 504})  # of answers that do not say it themselves


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request of a call: what goes over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_s: float


AttemptOutcome = httpx.Response | httpx.TransportError | None
CallSteps = Generator[Attempt | float, AttemptOutcome, T]  # a float is a pause in seconds; a pause has no outcome


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a logical call may take, and how many failures without a named wait it tolerates."""

    timeout_s: float = 120.0
    max_tries: int = 6


def send_with_retries(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
    policy: RetryPolicy,
    *,
    send_deadline: bool = False,
    accept_status: int | None = None,
    retryable: Set[int] = RETRYABLE,
) -> CallSteps[httpx.Response]:
    """Send, look at the outcome, wait, send again.

    Args:
        send_deadline: Whether each attempt says the time left, as `X-Deadline-Ms`.
        accept_status: A status that is an answer, too, though not a 2xx.
        retryable: Statuses to retry where the answer is not a problem document that says it.

    Returns:
        The response. Its steps are carried out by `Client.run` or `AsyncClient.run`.

    Raises:
        PlauditError: What the last attempt's outcome means.
    """
    until = time.monotonic() + policy.timeout_s
    failures = 0
    while True:
        left_s = until - time.monotonic()
        deadline = {"X-Deadline-Ms": str(max(1, int(left_s * 1000)))} if send_deadline else {}
        outcome = yield Attempt(method, path, {**headers, **deadline}, body, max(0.0, left_s) + GRACE_S)
        if isinstance(outcome, httpx.Response) and (outcome.is_success or outcome.status_code == accept_status):
            return outcome
        error, may_retry, retry_after_s = classify(outcome, retryable)
        if retry_after_s is None:
            failures += 1
            pause_s = _backoff_s(failures)
        else:
            pause_s = max(retry_after_s, LEAST_WAIT_S) * random.uniform(1.0, 1.25)
        if not may_retry or failures >= policy.max_tries or pause_s >= until - time.monotonic():
            raise error
        yield pause_s


def classify(outcome: AttemptOutcome, retryable: Set[int] = RETRYABLE) -> tuple[PlauditError, bool, float | None]:
    """What a failed attempt means: the error, whether a retry may help, and the seconds to wait, if the server says."""
    if not isinstance(outcome, httpx.Response):
        text = str(outcome) or type(outcome).__name__
        if isinstance(outcome, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return UsageError(text), False, None
        return Unreachable(f"no answer{_from(outcome)}: {text}"), True, None
    retry_after_s = _retry_after_s(outcome.headers.get("Retry-After"))
    try:
        problem = ProblemDocument.model_validate_json(outcome.content)
    except ValidationError:  # the page of a proxy, not an answer of plaudit
        status = outcome.status_code
        error = _of_status(status)(f"HTTP {status}: {outcome.text[:200]}", retry_after_s=retry_after_s)
        return error, status in retryable, retry_after_s
    if problem.retry_after_ms is not None:
        retry_after_s = problem.retry_after_ms / 1000
    error = (by_code(problem.code) or _of_status(problem.status))(problem.detail, retry_after_s=retry_after_s)
    for field_error in problem.errors or ():
        error.add_note(str(field_error))
    error.add_note(f"request {problem.request_id}")
    return error, problem.retryable, retry_after_s


def _from(error: httpx.TransportError | None) -> str:
    """ " from http://host:8000", if the error knows its request."""
    if error is None or error._request is None:  # its property raises where there is none
        return ""
    url = error._request.url
    return f" from {url.scheme}://{url.netloc.decode()}"


def _of_status(status: int) -> type[PlauditError]:
    """The most general class of an HTTP status."""
    codes = {
        401: "unauthorized",
        403: "forbidden",
        404: "not_found",
        409: "idempotency_conflict",
        413: "too_large",
        415: "unsupported_encoding",
        422: "invalid",
        429: "overloaded",
    }
    return by_code(codes.get(status, "")) or (BadRequest if status < 500 else InfraError)


def _retry_after_s(header: str | None) -> float | None:
    """Seconds, from either of the header's two forms."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _backoff_s(failures: int) -> float:
    """Full jitter: clients that failed together do not come back together."""
    return random.uniform(0.0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**failures))
