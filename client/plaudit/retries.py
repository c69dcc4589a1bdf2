"""One logical call over its tries, decided without I/O: what to send, how long to wait, what the outcome means.

Every logical call has one body and one idempotency key over all its tries, so a retry joins the first try's work or
gets its answer; the time left travels beside the body, as `X-Deadline-Ms`. A wait that the server names (Retry-After)
is kept and bounded by the deadline alone; failures that name none (no connection, a proxy's 502) count as `max_tries`.
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

from plaudit.errors import BadRequest, InfraError, PlauditError, UsageError, by_code
from plaudit.schemas import ProblemDocument

T = TypeVar("T")

GRACE_S = 5.0  # past the deadline the server still answers, with what is done by then
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
LEAST_WAIT_S = 0.02  # where the server says "at once"
RETRYABLE = frozenset({429, 502, 503, 504})  # of answers that do not say it themselves


class Unreachable(PlauditError):
    """No answer came: no connection, or it broke, for as many tries as allowed or until the deadline."""

    status, code, title = 503, "unreachable", "Service unreachable"


@dataclass(frozen=True, slots=True)
class Send:
    """One try: what goes over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_s: float


Outcome = httpx.Response | httpx.TransportError | None
Steps = Generator[Send | float, Outcome, T]  # a float is a pause in seconds; a pause has no outcome


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a logical call may take, and how many failures without a named wait it bears."""

    timeout_s: float = 120.0
    max_tries: int = 6


def attempt(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
    patience: Patience,
    *,
    tell_deadline: bool = False,
    also: int | None = None,
    retryable: Set[int] = RETRYABLE,
) -> Steps[httpx.Response]:
    """Send, look at the outcome, wait, send again; `also` is an answer, too, though not a 2xx."""
    until = time.monotonic() + patience.timeout_s
    failures = 0
    while True:
        left = until - time.monotonic()
        told = {"X-Deadline-Ms": str(max(1, int(left * 1000)))} if tell_deadline else {}
        outcome = yield Send(method, path, {**headers, **told}, body, max(0.0, left) + GRACE_S)
        if isinstance(outcome, httpx.Response) and (outcome.is_success or outcome.status_code == also):
            return outcome
        error, again, asked = judge(outcome, retryable)
        failures += asked is None
        pause = _pause(failures) if asked is None else max(asked, LEAST_WAIT_S) * random.uniform(1.0, 1.25)
        if not again or failures >= patience.max_tries or pause >= until - time.monotonic():
            raise error
        yield pause


def judge(outcome: Outcome, retryable: Set[int] = RETRYABLE) -> tuple[PlauditError, bool, float | None]:
    """What a try that failed means: the error, whether another try may help, and the wait that the server names."""
    if not isinstance(outcome, httpx.Response):
        text = str(outcome) or type(outcome).__name__
        if isinstance(outcome, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return UsageError(text), False, None
        return Unreachable(text), True, None
    asked = _retry_after(outcome.headers.get("Retry-After"))
    try:
        problem = ProblemDocument.model_validate_json(outcome.content)
    except ValidationError:  # a proxy's page, not ours
        status = outcome.status_code
        error = _of_status(status)(f"HTTP {status}: {outcome.text[:200]}", retry_after_s=asked)
        return error, status in retryable, asked
    if problem.retry_after_ms is not None:
        asked = problem.retry_after_ms / 1000
    error = (by_code(problem.code) or _of_status(problem.status))(problem.detail, retry_after_s=asked)
    for place in problem.errors or ():
        error.add_note(str(place))
    error.add_note(f"request {problem.request_id}")
    return error, problem.retryable, asked


def _of_status(status: int) -> type[PlauditError]:
    """The most general class of an HTTP status."""
    codes = {
        401: "unauthorized",
        403: "forbidden",
        404: "not_found",
        409: "idempotency_conflict",
        413: "too_large",
        422: "invalid",
        429: "overloaded",
    }
    return by_code(codes.get(status, "")) or (BadRequest if status < 500 else InfraError)


def _retry_after(header: str | None) -> float | None:
    """Seconds, from either of the header's two forms."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _pause(failures: int) -> float:
    """Full jitter: clients that failed together do not come back together."""
    return random.uniform(0.0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**failures))
