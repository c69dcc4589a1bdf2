"""What a deployment does and did: workers, tenants, recent requests, slow work, and its history."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plaudit.schemas.base import Answer

SlowPart = Literal["queue", "compile", "cpu", "waiting", "starvation", "text", "others", "overhead"]


class SlowSample(Answer):
    """Slow work of the last hour. Of texts it has digests and sizes; the request's replay has the texts."""

    request_id: str
    route: str
    at_ms: int = Field(description="Unix time in milliseconds at its end")
    total_ms: float = Field(description="from admission to its end; of a suite: mean of its programs, without queue")
    why: SlowPart = Field(description="the largest part")
    parts: dict[str, float] = Field(
        description="ms: `queue` (waited for a worker), `compile`, `cpu`, `waiting` (the program slept), `starvation` "
        "(other processes had the CPUs), `text` (its own tokens), `others` (groups in the same batches), `overhead`"
    )
    item: str = Field(description="the item's id, or its number where it has none")
    index: int | None = Field(None, description="of the program in its item")
    digest: str = Field("", description="first 16 digits of the SHA-256 of the program, prompt or suite")
    num_bytes: int = 0
    language: str = ""
    tests: str = Field("", description="kind of the tests")
    num_tests: int = 0
    num_programs: int = Field(0, description="programs or completions that it stands for")
    slowest_test: str = Field("", description="its name or number, and its wall time")
    verdict: str = ""
    model: str = ""
    tokens: int = 0
    trace_id: str = Field("", description="of the request's trace; empty without one")


class SlowAnswer(Answer):
    """The slowest of the last hour, slowest first: of this key, or of all keys for an admin key."""

    since_ms: int
    prompts: list[SlowSample]
    programs: list[SlowSample]
    suites: list[SlowSample]


class RequestSummary(Answer):
    """One request and its way through the service."""

    request_id: str
    at_ms: int = Field(description="Unix time in milliseconds at its end")
    method: str
    route: str
    status: int
    took_ms: float
    tenant: str = Field(description="digest of the caller's key; empty without keys, and for callers without a key")
    code: str = Field("", description="of the problem that it ended with")
    detail: str = ""
    num_items: int = 0
    num_jobs: int = 0
    num_cached: int = 0
    queue_ms: float = Field(0.0, description="longest wait of a job for a worker")
    compute_ms: float = Field(0.0, description="sum of the work of its jobs")
    stages_ms: dict[str, float] = Field(
        {},
        description="ms from its arrival: `read` (the body is valid), `admitted` (its jobs are in the queue), "
        "`first_result`, `last_result`",
    )
    workers: list[str] = Field([], description="that did its jobs, at most 4")
    trace_id: str = ""


class RequestsAnswer(Answer):
    """Recent requests, newest first: of this key, or of all keys for an admin key."""

    requests: list[RequestSummary]


class WorkerState(Answer):
    id: str
    kind: Literal["score", "execute"]
    host: str
    pid: int
    doing: str | None = Field(description="what it works on, as of its last heartbeat; null: nothing")
    since_ms: int | None = Field(None, description="Unix time at which it began that")
    num_done: int | None = Field(None, description="jobs since it started; null: a worker of an older version")
    serves: list[str] = Field(description="names of models with revisions, or of languages")
    isolation: str | None = None


class TenantShare(Answer):
    """What a tenant has in the queues now, and sent in the last hour."""

    tenant: str = Field(description="digest of the key; `others`: all keys that this one may not see")
    own: bool = Field(description="whether it is the caller's")
    cost: dict[str, float] = Field(description="of its jobs waiting or running, by queue: CPU seconds or tokens")
    share: dict[str, float] = Field(description="the same as a share of the queue's")
    num_requests: int = Field(description="in the last hour")


class WorkersAnswer(Answer):
    workers: list[WorkerState]
    tenants: list[TenantShare]


class ScoreSummary(Answer):
    num: int
    mean: float
    std: float


class HistoryPoint(Answer):
    """What happened in one step of time, all API processes together."""

    at_ms: int = Field(description="its beginning, Unix time in milliseconds")
    requests: int = 0
    rejected: int = Field(0, description="429 and 503")
    client_errors: int = Field(0, description="other 4xx")
    server_errors: int = Field(0, description="other 5xx")
    p50_ms: float | None = None
    p99_ms: float | None = None
    programs: int = 0
    scores: int = 0
    jobs: int = 0
    cached: int = 0
    verdicts: dict[str, int] = {}
    flags: dict[str, int] = {}
    codes: dict[str, int] = Field({}, description="problems by code")
    depth: dict[str, float] = Field({}, description="jobs waiting or running, by queue, as last measured")
    oldest_ms: dict[str, float] = {}
    workers: dict[str, int] = {}
    score: dict[str, ScoreSummary] = Field({}, description="raw scores by model")


class HistoryAnswer(Answer):
    step_s: int
    points: list[HistoryPoint] = Field(description="oldest first; steps in which nothing was measured are left out")
