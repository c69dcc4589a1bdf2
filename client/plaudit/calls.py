"""Every call of the API as steps to be carried out: typed requests in, typed answers out, no I/O."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from plaudit.errors import InfraError, Invalid, UsageError, by_code
from plaudit.options import known_language, refuse_unknown
from plaudit.retries import Patience, Steps, Unreachable, attempt
from plaudit.schemas import (
    ActivateAnswer,
    ExecuteAnswer,
    ExecuteItem,
    ExecuteRequest,
    ExecuteResult,
    Extract,
    Health,
    InfoAnswer,
    InlineTests,
    JobAccepted,
    JobStatus,
    LanguagesAnswer,
    LimitsSpec,
    Message,
    ModelsAnswer,
    Priority,
    RankAnswer,
    RankRequest,
    RankResult,
    Readiness,
    ReplayAnswer,
    RewardAnswer,
    RewardItem,
    RewardRequest,
    RewardResult,
    RewardSpec,
    ScoreAnswer,
    ScoreItem,
    ScoreRequest,
    ScoreResult,
    Stop,
    TestsetAnswer,
)

R = TypeVar("R", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)
I = TypeVar("I", ScoreItem, ExecuteItem, RewardItem)  # noqa: E741
Items = Sequence[I | Mapping[str, Any]]

Request = ScoreRequest | ExecuteRequest | RewardRequest | RankRequest
POLL_S = 20.0  # one long poll of a job


class Common(TypedDict, total=False):
    """`idempotency_key`: of a call's own making by default. Calls with the same key and body are one piece of work
    (for an hour), so a caller may hedge: send a second copy of what is slow, and take the answer that comes first."""

    priority: Priority
    deadline_ms: int | None
    idempotency_key: str


class ScoreOptions(Common, total=False):
    model: str
    on_overflow: Literal["error", "truncate_left"]
    calibrated: bool


class ExecuteOptions(Common, total=False):
    use_cache: bool


class RewardOptions(Common, total=False):
    spec: RewardSpec | Mapping[str, Any]


class RankOptions(RewardOptions, total=False):
    early_stop: bool


class BestOptions(RankOptions, total=False):
    language: str
    extract: Extract
    limits: LimitsSpec
    stop: Stop


@dataclass(frozen=True, slots=True)
class Best:
    """The completion that won, where it stood, and the whole ranking.

    `decided_by` is the term that set it apart from the second: "tests", or "rm" where the model broke a tie or there
    were no tests; None where the two are worth the same, and the earlier one was taken.
    """

    index: int
    completion: str
    result: RankResult
    decided_by: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One finished item of a request: `result` is that item's entry of the answer's `results`."""

    index: int
    result: ScoreResult | ExecuteResult | RewardResult | RankResult


@dataclass(frozen=True, slots=True)
class News:
    """What is new of a request since the last time."""

    parts: list[Part]
    cursor: str | None
    done: bool


_RESULTS: dict[type[Request], type[ScoreResult | ExecuteResult | RewardResult | RankResult]] = {
    ScoreRequest: ScoreResult,
    ExecuteRequest: ExecuteResult,
    RewardRequest: RewardResult,
    RankRequest: RankResult,
}


class Calls:
    """Each raises the class that the server's problem document names, or Unreachable if no answer came."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience

    def score(self, items: Items[ScoreItem] | ScoreRequest, /, **options: Unpack[ScoreOptions]) -> Steps[ScoreAnswer]:
        """`POST /score`: items, or a whole request."""
        key = options.pop("idempotency_key", None)
        return self._work("/score", _request(ScoreRequest, items, options), ScoreAnswer, key)

    def execute(
        self, items: Items[ExecuteItem] | ExecuteRequest, /, **options: Unpack[ExecuteOptions]
    ) -> Steps[ExecuteAnswer]:
        """`POST /execute`: items, or a whole request."""
        key = options.pop("idempotency_key", None)
        return self._work("/execute", _request(ExecuteRequest, items, options), ExecuteAnswer, key)

    def reward(
        self, items: Items[RewardItem] | RewardRequest, /, **options: Unpack[RewardOptions]
    ) -> Steps[RewardAnswer]:
        """`POST /reward`: items, or a whole request."""
        key = options.pop("idempotency_key", None)
        return self._work("/reward", _request(RewardRequest, items, options), RewardAnswer, key)

    def rank(self, items: Items[RewardItem] | RankRequest, /, **options: Unpack[RankOptions]) -> Steps[RankAnswer]:
        """`POST /rank`: items, or a whole request."""
        key = options.pop("idempotency_key", None)
        return self._work("/rank", _request(RankRequest, items, options), RankAnswer, key)

    def best_of_n(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        completions: Sequence[str],
        tests: BaseModel | Mapping[str, Any] | None = None,
        /,
        **options: Unpack[BestOptions],
    ) -> Steps[Best]:
        """The best of several completions: by tests first, then by the model; without tests by the model alone.

        Raises InfraError if no completion got a reward (to take any of them would be a guess), TypeError for an option
        that does not exist, and Invalid for a value that cannot be.
        """
        refuse_unknown(options, BestOptions.__annotations__, "best_of_n")
        key = options.pop("idempotency_key", None)
        try:
            known_language(options.get("language", "python"))
        except ValueError as error:
            raise Invalid(str(error)) from None
        item: dict[str, Any] = {"prompt": prompt, "completions": list(completions), **options}
        request: dict[str, Any] = {name: item.pop(name) for name in RankOptions.__annotations__ if name in item}
        if tests is not None:
            item["tests"] = tests
        answer = yield from self._work("/rank", _request(RankRequest, [item], request), RankAnswer, key)
        result = answer.results[0]
        if result.group.best is None:
            causes = {part.error.detail for one in result.completions for part in one.components.values() if part.error}
            raise InfraError("no completion got a reward: " + ("; ".join(sorted(causes)) or answer.status))
        won = result.completions[result.group.best].components
        decided_by = next((name for name, part in won.items() if part.decided), None)
        return Best(result.group.best, completions[result.group.best], result, decided_by)

    def submit(self, request: Request, /) -> Steps[JobAccepted]:
        """Hand work in now and come back for it later: `Prefer: respond-async`."""
        paths: dict[type[Request], str] = {
            ScoreRequest: "/score",
            ExecuteRequest: "/execute",
            RewardRequest: "/reward",
            RankRequest: "/rank",
        }
        headers = {"Prefer": "respond-async", "Idempotency-Key": uuid.uuid4().hex}
        body = request.model_dump_json(exclude_unset=True).encode()
        return self._call("POST", paths[type(request)], JobAccepted, body, headers)

    def job(self, job_id: str, /, *, wait_s: float = 0.0, cursor: str | None = None) -> Steps[JobStatus]:
        """What is new of a job since `cursor`, waiting at most `wait_s` for something to be."""
        query = httpx.QueryParams({"wait_ms": int(wait_s * 1000), **({"cursor": cursor} if cursor else {})})
        return self._call("GET", f"/jobs/{job_id}?{query}", JobStatus)

    def wait(self, job_id: str, /, *, timeout_s: float = 3600.0) -> Steps[JobStatus]:
        """A job's last status, with its answer. Raises Unreachable if it still runs after `timeout_s`."""
        until = time.monotonic() + timeout_s
        cursor: str | None = None
        while (left := until - time.monotonic()) > 0:
            status = yield from self.job(job_id, wait_s=min(POLL_S, left), cursor=cursor)
            if status.state != "running":
                return status
            cursor = status.cursor
        raise Unreachable(f"job {job_id} still runs after {timeout_s:g} s")

    def news(self, request: Request, accepted: JobAccepted, cursor: str | None, until: float) -> Steps[News]:
        """Which items of a submitted request have been done since `cursor`. Raises what ended it, if not its work."""
        left = until - time.monotonic()
        if left <= 0:
            raise Unreachable(f"job {accepted.job_id} still runs, and its time is up")
        status = yield from self.job(accepted.job_id, wait_s=min(POLL_S, left), cursor=cursor)
        if status.error is not None:
            kind = by_code(status.error.code) or InfraError
            raise kind(status.error.detail)
        if status.state == "cancelled":
            raise InfraError(f"job {accepted.job_id} was cancelled")
        parts = [Part(event.index, _RESULTS[type(request)].model_validate(event.result)) for event in status.items]
        return News(parts, status.cursor, status.state == "done")

    def cancel(self, job_id: str, /) -> Steps[None]:
        """Stop a job; what is done of it stays done."""
        yield from attempt("DELETE", f"/jobs/{job_id}", {}, None, self.patience)

    def activate(
        self, model: str, revision: str | None = None, /, *, path: str | None = None, timeout_s: float = 600.0
    ) -> Steps[ActivateAnswer]:
        """Swap a model's revision (admin key): to a known digest, or to the checkpoint at a path that workers see."""
        if (revision, path) == (None, None):
            raise UsageError("activate takes a revision, a path, or both")
        body = to_json({key: value for key, value in (("revision", revision), ("path", path)) if value is not None})
        patience = replace(self.patience, timeout_s=timeout_s)
        response = yield from attempt(
            "POST", f"/models/{quote(model, safe='')}/activate", _JSON, body, patience, tell_deadline=True
        )
        return _parse(response, ActivateAnswer)

    def put_testset(self, tests: InlineTests, /) -> Steps[TestsetAnswer]:
        """Store a suite; the answer's digest names it in `{"kind": "ref", "sha256": ...}`."""
        body = tests.model_dump_json(exclude_unset=True).encode()
        return self._call("PUT", f"/testsets/{hashlib.sha256(body).hexdigest()}", TestsetAnswer, body)

    def replay(self, request_id: str, /) -> Steps[ReplayAnswer]:
        """`GET /requests/{id}/replay`: what it takes to reproduce a request's verdicts. Raises RequestUnknown."""
        return self._call("GET", f"/requests/{quote(request_id, safe='')}/replay", ReplayAnswer)

    def models(self) -> Steps[ModelsAnswer]:
        """`GET /models`"""
        return self._call("GET", "/models", ModelsAnswer)

    def languages(self) -> Steps[LanguagesAnswer]:
        """`GET /languages`"""
        return self._call("GET", "/languages", LanguagesAnswer)

    def info(self) -> Steps[InfoAnswer]:
        """`GET /info`: versions, limits, isolation level, models, queues."""
        return self._call("GET", "/info", InfoAnswer)

    def health(self) -> Steps[Health]:
        """`GET /health`: the process lives."""
        return self._call("GET", "/health", Health)

    def ready(self) -> Steps[Readiness]:
        """`GET /ready`: whether a scorer and an executor answer; "not yet" is an answer, with its reasons."""
        response = yield from attempt("GET", "/ready", {}, None, self.patience, also=503)
        return _parse(response, Readiness)

    def _work(self, path: str, request: Request, kind: type[A], key: str | None) -> Steps[A]:
        """A request with a deadline: it is told beside the body, which so stays the same over all tries."""
        body = request.model_dump_json(exclude_unset=True, exclude={"deadline_ms"}).encode()
        headers = {**_JSON, "Idempotency-Key": key or uuid.uuid4().hex}
        patience = self.patience
        if request.deadline_ms is not None:
            patience = replace(patience, timeout_s=request.deadline_ms / 1000)
        response = yield from attempt("POST", path, headers, body, patience, tell_deadline=True)
        return _parse(response, kind)

    def _call(
        self, method: str, path: str, kind: type[A], body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Steps[A]:
        typed = _JSON if body is not None else {}
        response = yield from attempt(method, path, {**typed, **(headers or {})}, body, self.patience)
        return _parse(response, kind)


_JSON = {"Content-Type": "application/json"}


def _request(kind: type[R], items: Any, options: Mapping[str, Any]) -> R:
    if isinstance(items, kind):
        if options:
            raise UsageError(f"{kind.__name__} is whole already; {', '.join(options)} would be lost")
        return items
    try:
        return kind(items=items, **options)
    except ValidationError as error:
        raise Invalid(str(error)) from error


def _parse(response: httpx.Response, kind: type[A]) -> A:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise InfraError(f"{response.url.path} did not answer as plaudit does: {error}") from error
