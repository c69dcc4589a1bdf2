"""What travels through the queue: one job per group to score or program to execute, and one reply per job.

- A job's id is the hash of its content, so identical jobs in flight are one job, for all clients.
- Frames are msgpack (msgspec). They are decoded into these types only, so a frame cannot carry code.
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
    """States of a job: queued → running → one of `FINAL_STATES`. After a lost lease it is queued again."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "ok"
    TIMEOUT = "timeout_queue"
    FAILED = "infra_error"
    CANCELLED = "cancelled"
    INVALID = "invalid"


FINAL_STATES = frozenset({JobState.DONE, JobState.TIMEOUT, JobState.FAILED, JobState.CANCELLED, JobState.INVALID})


class Turns(msgspec.Struct, frozen=True, tag="turns"):
    """A completion of several messages, or of one that is more than text: their list as JSON."""

    messages: str


class TokenIds(msgspec.Struct, frozen=True, tag="token_ids"):
    """A whole sequence that the client tokenised, special tokens included."""

    ids: tuple[int, ...]


class Truncation(msgspec.Struct, frozen=True, tag="truncation"):
    """How a text that is too long is cut, where a client says more than `on_overflow` does.

    Attributes:
        cut: what loses tokens: nothing (it is an error), the completion (the prompt and what the template puts behind
            the completion stay, as with Hugging Face's `only_second`), or the whole text, wherever that is cut.
        side: which end of it.
        max_tokens: of the whole text; None: the model's own limit.
        max_prompt_tokens: of the prompt's own text, whose first tokens are kept; None: no such limit.
        max_completion_tokens: the same for the completion.
    """

    cut: Literal["nothing", "completion", "text"]
    side: Literal["left", "right"] = "right"
    max_tokens: int | None = None
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None


OnOverflow = Literal["error", "truncate_left"] | Truncation
Completion = str | Turns | TokenIds
TaskPrompt = str | list[dict[str, Any]] | None


class ScoreTask(msgspec.Struct, frozen=True, tag="score"):
    """A prompt (text or chat messages) with the completions to score. Without a prompt the completions are whole texts
    or token ids.

    `revision`: of the model; a worker that does not serve it scores nothing.
    """

    model: str
    revision: str
    prompt: TaskPrompt
    completions: list[Completion]
    on_overflow: OnOverflow = "error"


class ExecuteTask(msgspec.Struct, frozen=True, tag="execute"):
    """A program and the digest of its suite: a suite is stored once for all programs of a group.

    `toolchain`: of the executors that the job was admitted for. An executor of another toolchain may run it, and caches
    the result under its own toolchain. Empty in frames of older versions.
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
    """One entry per completion, in order: a score, or the reason there is none."""

    revision: str
    scores: list[float | None]
    tokens: list[int]
    truncated: list[bool]
    problems: list[str | None]  # null, or "code: detail"
    pass_probabilities: list[float | None]
    steps: list[list[float] | None] | None = None  # of a process reward model
    cacheable: bool = True  # false: the scores depend on more than the model, the prompt and their own completion


class Executed(msgspec.Struct, frozen=True, tag="executed"):
    """A verdict. `toolchain`: of the executor that judged; empty in frames of older versions."""

    report: sandbox.Report
    toolchain: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Why there is no result. `state`: one of `FINAL_STATES`, but not `DONE`."""

    state: JobState
    code: str
    detail: str
    retryable: bool


class Reply(msgspec.Struct, frozen=True):
    """How a job ended.

    Attributes:
        queue_ms: from its admission to the start of the work.
        compute_ms: of the work.
        worker: its name; `cache` if nobody worked.
        parts: where the time of work that took long went, in ms by `service.slowness.PARTS`.
    """

    job: str
    body: Scored | Executed | Failed
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    worker: str = ""
    parts: dict[str, float] | None = None


class Job(msgspec.Struct, frozen=True):
    """A task with what the queue needs to know of it.

    Attributes:
        cost: in tokens or CPU-seconds.
        deadline_ms: Unix time.
        suite: digest and frame of the suite that the task refers to; stored with the job.
        tag: the revision of the model; a queue admits jobs of its active revision only.
        tenant: whose share of the queue it counts to.
        shard: the index of the Redis that it goes to.
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
    shard: int = 0


_encoder = msgspec.msgpack.Encoder()
_task_decoder = msgspec.msgpack.Decoder(Task)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode(value: Any) -> bytes:
    return _encoder.encode(value)


def decode_task(frame: bytes) -> Task:
    task: Task = _task_decoder.decode(frame)
    return task


class _Addressed(msgspec.Struct, frozen=True):
    """The part of a reply that every version has: the job that it answers."""

    job: str


_address_decoder = msgspec.msgpack.Decoder(_Addressed)


def decode_reply(frame: bytes) -> Reply:
    """A reply. Raises msgspec.DecodeError for a frame of another version."""
    return _reply_decoder.decode(frame)


def read_reply(frame: bytes) -> Reply | None:
    """A reply; if only its job can be read, a failure of that job; None for a frame that is not a reply."""
    try:
        return decode_reply(frame)
    except msgspec.DecodeError:
        try:
            job = _address_decoder.decode(frame).job
        except msgspec.DecodeError:
            return None
    detail = "the worker's reply cannot be read: the worker is of another version"
    return Reply(job, Failed(JobState.FAILED, "reply_unreadable", detail, True))


def content_hash(*parts: object) -> str:
    """SHA-256 over the msgpack of the parts, in hex: the id of a job."""
    return hashlib.sha256(_encoder.encode(parts)).hexdigest()


def score_job_id(task: bytes) -> str:
    """The job id of an encoded task, which names its revision."""
    return content_hash("score", task)


def execute_job_id(task: ExecuteTask) -> str:
    """The job id of a task, which names its toolchain."""
    return content_hash("execute", encode(task))


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
    "observe": sandbox.ObserveSuite,
}
SUITE_KINDS = tuple(_SUITES)  # executors announce them
_KINDS = {suite: kind for kind, suite in _SUITES.items()}


def encode_suite(suite: sandbox.Suite) -> bytes:
    """JSON, not msgpack: a test may hold an integer of any size."""
    return json.dumps({"kind": _KINDS[type(suite)], "suite": msgspec.to_builtins(suite)}, sort_keys=True).encode()


def decode_suite(frame: bytes) -> sandbox.Suite:
    return suite_of(json.loads(frame))


def suite_of(parsed: Any) -> sandbox.Suite:
    """The suite of a frame that is parsed already."""
    return msgspec.convert(parsed["suite"], _SUITES[parsed["kind"]])


_TEST_FUNCTION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+test", re.MULTILINE)


def num_tests(suite: sandbox.Suite) -> int:
    """How many tests a suite counts as before it has run; a check, a script and a run count as one."""
    match suite:
        case sandbox.AssertSuite():
            return len(suite.asserts)
        case sandbox.PytestSuite() | sandbox.UnittestSuite():
            return max(1, len(_TEST_FUNCTION.findall(suite.source)))
        case sandbox.FunctionSuite() | sandbox.StdioSuite():
            return len(suite.cases)
        case sandbox.ObserveSuite():
            return len(suite.calls)
    return 1
