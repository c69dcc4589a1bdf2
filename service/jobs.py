"""What travels through the queue: one job per group to score or program to execute, one reply per job.

A job's id is the hash of its content, so identical work in flight is one job, whoever asks and however often.
Frames are msgpack (msgspec); values are decoded into these types and nothing else, so a frame cannot carry code.
"""

from __future__ import annotations

import hashlib
import json
import re
from enum import StrEnum
from typing import Any, Literal

import msgspec

from sandbox import types as sandbox

Kind = Literal["score", "execute"]
Lane = Literal["high", "normal", "low"]
LANES: tuple[Lane, ...] = ("high", "normal", "low")


class JobState(StrEnum):
    """A job's life: queued → running → one of the endings. Only a lost lease goes back from running to queued."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "ok"
    TIMEOUT = "timeout_queue"
    FAILED = "infra_error"
    CANCELLED = "cancelled"
    INVALID = "invalid"


ENDINGS = frozenset({JobState.DONE, JobState.TIMEOUT, JobState.FAILED, JobState.CANCELLED, JobState.INVALID})


class ScoreTask(msgspec.Struct, frozen=True, tag="score"):
    """A prompt (text or chat messages) with the completions to score. Without one they are whole texts already.

    `revision`: of the model; a worker that does not have it scores nothing.
    """

    model: str
    revision: str
    prompt: str | list[dict[str, str]] | None
    completions: list[str]
    on_overflow: Literal["error", "truncate_left"] = "error"


class ExecuteTask(msgspec.Struct, frozen=True, tag="execute"):
    """A program and where its suite lies: suites are stored once, by digest, for the many programs of a group.

    `toolchain`: of the executors that it was admitted for. One of another toolchain may run it, but what comes of it is
    known under its own toolchain then, never under this one. Empty in a frame of a version that did not say it.
    """

    language: str
    source: str
    suite: str
    limits: sandbox.Limits
    stop_after: int | None = None
    options: sandbox.Options = sandbox.NO_OPTIONS
    toolchain: str = ""


Task = ScoreTask | ExecuteTask


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """One entry a completion, in order: a score, or the reason there is none."""

    revision: str
    scores: list[float | None]
    tokens: list[int]
    truncated: list[bool]
    problems: list[str | None]  # null, or "code: detail"
    pass_probabilities: list[float | None]
    steps: list[list[float] | None] | None = None  # of a process reward model


class Executed(msgspec.Struct, frozen=True, tag="executed"):
    """`toolchain`: of the executor that judged; empty in a frame of a version that did not say it."""

    report: sandbox.Report
    toolchain: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Why there is no result; `state` is one of ENDINGS but DONE."""

    state: JobState
    code: str
    detail: str
    retryable: bool


class Reply(msgspec.Struct, frozen=True):
    job: str
    body: Scored | Executed | Failed
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    worker: str = ""


class Job(msgspec.Struct, frozen=True):
    """A task with what the queue needs to know of it. `cost` is in tokens or CPU-seconds; `deadline` in Unix ms.

    `suite`: digest and frame of what the task refers to, stored with it. `tag`: the revision of the model that is to do
    it; a queue that has moved on to another admits it no more. `tenant`: on whose account it waits its turn.
    """

    id: str
    kind: Kind
    queue: str
    lane: Lane
    task: bytes
    cost: float
    deadline_ms: int
    suite: tuple[str, bytes] | None = None
    tag: str = ""
    tenant: str = ""


_encoder = msgspec.msgpack.Encoder()
_task_decoder = msgspec.msgpack.Decoder(Task)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode(value: Any) -> bytes:
    return _encoder.encode(value)


def decode_task(frame: bytes) -> Task:
    task: Task = _task_decoder.decode(frame)
    return task


class _Addressed(msgspec.Struct, frozen=True):
    """What every version's reply says: for which job it is."""

    job: str


_address_decoder = msgspec.msgpack.Decoder(_Addressed)


def decode_reply(frame: bytes) -> Reply:
    """A reply. Raises msgspec.DecodeError for one of another version."""
    return _reply_decoder.decode(frame)


def read_reply(frame: bytes) -> Reply | None:
    """A reply, or where only its address can be read a failure of that job; None for what is no reply at all."""
    try:
        return decode_reply(frame)
    except msgspec.DecodeError:
        try:
            job = _address_decoder.decode(frame).job
        except msgspec.DecodeError:
            return None
    detail = "the worker's reply cannot be read; it is of another version"
    return Reply(job, Failed(JobState.FAILED, "reply_unreadable", detail, True))


def digest(*parts: object) -> str:
    """SHA-256 over the msgpack of the parts: the identity of a piece of work (hex)."""
    return hashlib.sha256(_encoder.encode(parts)).hexdigest()


def score_job_id(task: bytes) -> str:
    """The identity of scoring an encoded task, which names its revision."""
    return digest("score", task)


def execute_job_id(task: ExecuteTask) -> str:
    """The identity of executing a task, which names its toolchain."""
    return digest("execute", encode(task))


# --- suites ----------------------------------------------------------------------------------------------------------

_SUITES: dict[str, type[sandbox.Suite]] = {
    "assert": sandbox.AssertSuite,
    "function": sandbox.FunctionSuite,
    "check": sandbox.CheckSuite,
    "pytest": sandbox.PytestSuite,
    "unittest": sandbox.UnittestSuite,
    "stdio": sandbox.StdioSuite,
    "script": sandbox.ScriptSuite,
    "run": sandbox.RunSuite,
}
_KINDS = {suite: kind for kind, suite in _SUITES.items()}


def encode_suite(suite: sandbox.Suite) -> bytes:
    """JSON, not msgpack: a test may hold an integer of any size."""
    return json.dumps({"kind": _KINDS[type(suite)], "suite": msgspec.to_builtins(suite)}, sort_keys=True).encode()


def decode_suite(frame: bytes) -> sandbox.Suite:
    raw = json.loads(frame)
    return msgspec.convert(raw["suite"], _SUITES[raw["kind"]])


_TEST_FUNCTION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+test", re.MULTILINE)


def num_tests(suite: sandbox.Suite) -> int:
    """How many tests a suite counts as before it has run; a `check` is one, and so are a script and a run."""
    match suite:
        case sandbox.AssertSuite():
            return len(suite.asserts)
        case sandbox.PytestSuite() | sandbox.UnittestSuite():
            return max(1, len(_TEST_FUNCTION.findall(suite.source)))
        case sandbox.FunctionSuite() | sandbox.StdioSuite():
            return len(suite.cases)
    return 1
