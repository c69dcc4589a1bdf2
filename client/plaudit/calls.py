"""Every call of the API as steps: typed requests in, typed answers out, no I/O.

A step is an attempt to send or a pause; `Client.run` carries steps out by blocking, `AsyncClient.run` by awaiting.
"""

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

from plaudit.errors import InfraError, Invalid, Unreachable, UsageError, by_code
from plaudit.field_errors import sentence
from plaudit.options import known_language, refuse_unknown
from plaudit.retries import CallSteps, RetryPolicy, send_with_retries
from plaudit.schemas import (
    ActivateAnswer,
    AuditAnswer,
    AuditItem,
    AuditReport,
    AuditRequest,
    ExecuteAnswer,
    ExecuteItem,
    ExecuteRequest,
    ExecuteResult,
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
    RewardExtract,
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
I = TypeVar("I", ScoreItem, ExecuteItem, RewardItem, AuditItem)  # noqa: E741
Items = Sequence[I | Mapping[str, Any]]

Request = ScoreRequest | ExecuteRequest | RewardRequest | RankRequest | AuditRequest
StreamedResult = ScoreResult | ExecuteResult | RewardResult | RankResult | AuditReport
POLL_S = 20.0  # one long poll of a job


class CallOptions(TypedDict, total=False):
    """Options of every call that sends work.

    priority: "high", "normal" or "low".
    deadline_ms: budget of the call over all its attempts, in milliseconds; by default the client's `timeout_s`.
    idempotency_key: a fresh one per call by default. Calls with the same key and body are one piece of work (for an
        hour), so a caller may hedge: send a second copy of what is slow, and take the answer that comes first.
    """

    priority: Priority
    deadline_ms: int | None
    idempotency_key: str


class ScoreOptions(CallOptions, total=False):
    model: str
    on_overflow: Literal["error", "truncate_left"]
    calibrated: bool
    tokenizer_digest: str


class ExecuteOptions(CallOptions, total=False):
    use_cache: bool


class RewardOptions(CallOptions, total=False):
    spec: RewardSpec | Mapping[str, Any]


class RankOptions(RewardOptions, total=False):
    early_stop: bool


class BestOptions(RankOptions, total=False):
    language: str
    extract: RewardExtract
    limits: LimitsSpec
    stop: Stop


@dataclass(frozen=True, slots=True)
class BestOfN:
    """The best completion of one prompt.

    index: its place among the completions.
    completion: its text.
    result: the whole ranking, as `/rank` answered it.
    decided_by: the term that set it apart from the second: "tests", or "rm" where the model broke a tie or there were
        no tests; None where the two are worth the same, and the earlier one was taken.
    margin: how sure the choice is, `result.group.margin`; by a prompt's evidence from 0 to 1, else in units of rewards.
    """

    index: int
    completion: str
    result: RankResult
    decided_by: str | None = None

    @property
    def margin(self) -> float | None:
        return self.result.group.margin


@dataclass(frozen=True, slots=True)
class StreamedItem:
    """One finished item of a request: `result` is that item's entry of the answer's `results`."""

    index: int
    result: StreamedResult


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """The items of a submitted request that finished since `cursor`."""

    items: list[StreamedItem]
    cursor: str | None
    done: bool


_RESULTS: dict[type[Request], type[StreamedResult]] = {
    ScoreRequest: ScoreResult,
    ExecuteRequest: ExecuteResult,
    RewardRequest: RewardResult,
    RankRequest: RankResult,
    AuditRequest: AuditReport,
}


class Calls:
    """The calls, by the names of `Client`'s methods, which document them.

    Each raises the class that the server's problem document names, or Unreachable if no answer arrived.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy

    def score(
        self, items: Items[ScoreItem] | ScoreRequest, /, **options: Unpack[ScoreOptions]
    ) -> CallSteps[ScoreAnswer]:
        """`POST /score`: items, or a whole request."""
        return self._work("/score", ScoreRequest, items, options, ScoreAnswer)

    def execute(
        self, items: Items[ExecuteItem] | ExecuteRequest, /, **options: Unpack[ExecuteOptions]
    ) -> CallSteps[ExecuteAnswer]:
        """`POST /execute`: items, or a whole request."""
        return self._work("/execute", ExecuteRequest, items, options, ExecuteAnswer)

    def reward(
        self, items: Items[RewardItem] | RewardRequest, /, **options: Unpack[RewardOptions]
    ) -> CallSteps[RewardAnswer]:
        """`POST /reward`: items, or a whole request."""
        return self._work("/reward", RewardRequest, items, options, RewardAnswer)

    def rank(self, items: Items[RewardItem] | RankRequest, /, **options: Unpack[RankOptions]) -> CallSteps[RankAnswer]:
        """`POST /rank`: items, or a whole request."""
        return self._work("/rank", RankRequest, items, options, RankAnswer)

    def audit(
        self, items: Items[AuditItem] | AuditRequest, /, **options: Unpack[ExecuteOptions]
    ) -> CallSteps[AuditAnswer]:
        """`POST /audit`: items, or a whole request."""
        return self._work("/audit", AuditRequest, items, options, AuditAnswer)

    def best_of_n(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        completions: Sequence[str],
        tests: BaseModel | Mapping[str, Any] | None = None,
        /,
        **options: Unpack[BestOptions],
    ) -> CallSteps[BestOfN]:
        """`POST /rank` for one prompt, and the best of its completions."""
        refuse_unknown(options, BestOptions.__annotations__, "best_of_n")
        try:
            known_language(options.get("language", "python"))
        except ValueError as error:
            raise Invalid(str(error)) from None
        item: dict[str, Any] = {"prompt": prompt, "completions": list(completions), **options}
        request: dict[str, Any] = {name: item.pop(name) for name in RankOptions.__annotations__ if name in item}
        if tests is not None:
            item["tests"] = tests
        answer = yield from self._work("/rank", RankRequest, [item], request, RankAnswer)
        result = answer.results[0]
        if result.group.best is None:
            components = [component for reward in result.completions for component in reward.components.values()]
            causes = {component.error.detail for component in components if component.error}
            raise InfraError("no completion got a reward: " + ("; ".join(sorted(causes)) or answer.status))
        components_of_best = result.completions[result.group.best].components
        decided_by = next((name for name, component in components_of_best.items() if component.decided), None)
        return BestOfN(result.group.best, completions[result.group.best], result, decided_by)

    def submit(self, request: Request, /) -> CallSteps[JobAccepted]:
        """Hand work in now and come back for it later: `Prefer: respond-async`."""
        paths: dict[type[Request], str] = {
            ScoreRequest: "/score",
            ExecuteRequest: "/execute",
            RewardRequest: "/reward",
            RankRequest: "/rank",
            AuditRequest: "/audit",
        }
        headers = {"Prefer": "respond-async", "Idempotency-Key": uuid.uuid4().hex}
        body = request.model_dump_json(exclude_unset=True).encode()
        return self._call("POST", paths[type(request)], JobAccepted, body, headers)

    def job(self, job_id: str, /, *, wait_s: float = 0.0, cursor: str | None = None) -> CallSteps[JobStatus]:
        """A job's state, and its items that finished since `cursor`; waits at most `wait_s` for news."""
        query = httpx.QueryParams({"wait_ms": int(wait_s * 1000), **({"cursor": cursor} if cursor else {})})
        return self._call("GET", f"/jobs/{job_id}?{query}", JobStatus)

    def wait(self, job_id: str, /, *, timeout_s: float = 3600.0) -> CallSteps[JobStatus]:
        """A job's last status, with its answer. Raises Unreachable if it still runs after `timeout_s`."""
        until = time.monotonic() + timeout_s
        cursor: str | None = None
        while (left_s := until - time.monotonic()) > 0:
            status = yield from self.job(job_id, wait_s=min(POLL_S, left_s), cursor=cursor)
            if status.state != "running":
                return status
            cursor = status.cursor
        raise Unreachable(f"job {job_id} still runs after {timeout_s:g} s")

    def updates(
        self, request: Request, accepted: JobAccepted, cursor: str | None, until: float
    ) -> CallSteps[JobUpdate]:
        """Which items of a submitted request finished since `cursor`. Raises the error that ended it early."""
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise Unreachable(f"job {accepted.job_id} still runs, and its time is up")
        status = yield from self.job(accepted.job_id, wait_s=min(POLL_S, left_s), cursor=cursor)
        if status.error is not None:
            kind = by_code(status.error.code) or InfraError
            raise kind(status.error.detail)
        if status.state == "cancelled":
            raise InfraError(f"job {accepted.job_id} was cancelled")
        results = _RESULTS[type(request)]
        items = [StreamedItem(event.index, results.model_validate(event.result)) for event in status.items]
        return JobUpdate(items, status.cursor, status.state == "done")

    def cancel(self, job_id: str, /) -> CallSteps[None]:
        """Stop a job. Items that have finished keep their results."""
        yield from send_with_retries("DELETE", f"/jobs/{job_id}", {}, None, self.policy)

    def activate(
        self, model: str, revision: str | None = None, /, *, path: str | None = None, timeout_s: float = 600.0
    ) -> CallSteps[ActivateAnswer]:
        """Swap a model's revision (admin key): to a known digest, or to the checkpoint at a path that workers see."""
        if (revision, path) == (None, None):
            raise UsageError("activate takes a revision, a path, or both")
        body = to_json({key: value for key, value in (("revision", revision), ("path", path)) if value is not None})
        policy = replace(self.policy, timeout_s=timeout_s)
        response = yield from send_with_retries(
            "POST", f"/models/{quote(model, safe='')}/activate", _JSON, body, policy, send_deadline=True
        )
        return _parse(response, ActivateAnswer)

    def put_testset(self, tests: InlineTests, /) -> CallSteps[TestsetAnswer]:
        """Store a suite; the answer's digest names it in `{"kind": "ref", "sha256": ...}`."""
        body = tests.model_dump_json(exclude_unset=True).encode()
        return self._call("PUT", f"/testsets/{hashlib.sha256(body).hexdigest()}", TestsetAnswer, body)

    def replay(self, request_id: str, /) -> CallSteps[ReplayAnswer]:
        """`GET /requests/{id}/replay`: what it takes to reproduce a request's verdicts. Raises RequestUnknown."""
        return self._call("GET", f"/requests/{quote(request_id, safe='')}/replay", ReplayAnswer)

    def models(self) -> CallSteps[ModelsAnswer]:
        """`GET /models`"""
        return self._call("GET", "/models", ModelsAnswer)

    def languages(self) -> CallSteps[LanguagesAnswer]:
        """`GET /languages`"""
        return self._call("GET", "/languages", LanguagesAnswer)

    def info(self) -> CallSteps[InfoAnswer]:
        """`GET /info`: versions, limits, isolation level, models, queues."""
        return self._call("GET", "/info", InfoAnswer)

    def health(self) -> CallSteps[Health]:
        """`GET /health`: the process lives."""
        return self._call("GET", "/health", Health)

    def ready(self) -> CallSteps[Readiness]:
        """`GET /ready`: whether a scorer and an executor answer; "not yet" is an answer, with its reasons."""
        response = yield from send_with_retries("GET", "/ready", {}, None, self.policy, accept_status=503)
        return _parse(response, Readiness)

    def _work(
        self, path: str, kind: type[Request], items: Any, options: Mapping[str, Any], answer: type[A]
    ) -> CallSteps[A]:
        """A call that sends work. What the request says is checked before the first step."""
        fields = {name: value for name, value in options.items() if name != "idempotency_key"}
        key = options.get("idempotency_key") or uuid.uuid4().hex
        return self._post(path, _request(kind, items, fields), answer, key)

    def _post(self, path: str, request: Request, answer: type[A], key: str) -> CallSteps[A]:
        """The deadline travels beside the body, which so stays the same over all attempts."""
        body = request.model_dump_json(exclude_unset=True, exclude={"deadline_ms"}).encode()
        policy = self.policy
        if request.deadline_ms is not None:
            policy = replace(policy, timeout_s=request.deadline_ms / 1000)
        headers = {**_JSON, "Idempotency-Key": key}
        response = yield from send_with_retries("POST", path, headers, body, policy, send_deadline=True)
        return _parse(response, answer)

    def _call(
        self, method: str, path: str, kind: type[A], body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CallSteps[A]:
        typed = _JSON if body is not None else {}
        response = yield from send_with_retries(method, path, {**typed, **(headers or {})}, body, self.policy)
        return _parse(response, kind)


_JSON = {"Content-Type": "application/json"}


def _request(kind: type[R], items: Any, options: Mapping[str, Any]) -> R:
    if isinstance(items, kind):
        if options:
            raise UsageError(
                f"a whole {kind.__name__} was given, so {', '.join(options)} would be ignored; set it in the request"
            )
        return items
    try:
        return kind(items=items, **options)
    except ValidationError as error:
        raise Invalid(sentence(error.errors())) from error


def _parse(response: httpx.Response, kind: type[A]) -> A:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise InfraError(f"{response.url.path} did not answer as plaudit does: {sentence(error.errors())}") from error
