"""An executing request as jobs, and replies as results.

- One job per program. Equal programs of a request are one job.
- A finished job's reply is cached by the queue itself, under the job's id: a digest of language, code, suite, limits,
  stop rule, options and toolchain.
- A suite is stored in Redis once, by digest, with the jobs that refer to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.errors import TestsetUnknown
from plaudit.extract import last_fence
from plaudit.grading import Verdict
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import (
    ExecuteItem,
    ExecuteResult,
    ProgramResult,
    RefTests,
    ResultError,
    StopAfter,
    Tests,
)
from sandbox import types as sandbox
from sandbox.language_specs import BY_NAME
from service.api import json_body
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.submission import Dispatcher, Submission
from service.api.dispatch.tasks import SMALL_BYTES, in_thread, off_loop
from service.api.handlers import slow_samples
from service.api.handlers.plan import best_index, problem_of
from service.jobs import (
    Executed,
    ExecuteTask,
    Failed,
    Job,
    Reply,
    encode,
    encode_suite,
    execute_job_id,
    num_tests,
    suite_of,
)
from service.judging import result_of, to_suite
from service.queue.keys import EXECUTE_QUEUE

MAX_COMPILE_CPU_S = 15.0  # of a language with a compiler


@dataclass(frozen=True, slots=True)
class EncodedSuite:
    """A suite as it is stored, and how many tests it counts as."""

    sha256: str
    frame: bytes
    num_tests: int

    @classmethod
    def of(cls, tests: Tests) -> EncodedSuite:
        """The suite of a request's tests, which are not a reference."""
        suite = to_suite(tests)
        frame = encode_suite(suite)
        return cls(hashlib.sha256(frame).hexdigest(), frame, num_tests(suite))

    @classmethod
    def stored(cls, sha256: str, frame: bytes) -> EncodedSuite:
        return cls(sha256, frame, num_tests(suite_of(json_body.load(frame))))


class ExecuteGroup:
    """One item: a suite and, per program, a job or the result that is known without one.

    Args:
        item: as the request has it.
        suite: what its programs are judged by.
        toolchain: the digest of the executors' toolchain.
        context: of the request.
        shard: the index of the Redis that its jobs go to.
    """

    def __init__(
        self, item: ExecuteItem, suite: EncodedSuite, toolchain: str, context: RequestContext, shard: int = 0
    ) -> None:
        self.item = item
        self.shard = shard
        self.frame, self.sha256, self.num_tests = suite.frame, suite.sha256, suite.num_tests
        self.limits = sandbox.Limits(**item.limits.model_dump())
        self.options = sandbox.Options(**item.options.model_dump())
        self.jobs: list[Job | ProgramResult] = [self._job(text, toolchain, context) for text in item.programs]

    def _job(self, text: str, toolchain: str, context: RequestContext) -> Job | ProgramResult:
        item = self.item
        source = text if item.extract == "none" else last_fence(text)
        if source is None:
            return ProgramResult(
                status="ok", verdict=Verdict.NO_CODE, passed=0, total=self.num_tests, pass_rate=0.0, trainable=True
            )
        try:
            language = resolve(item.language)
        except UnsupportedLanguage as error:
            problem = ResultError(code="language_unknown", detail=str(error))
            return ProgramResult(status="invalid", trainable=False, error=problem)
        stop_after = (
            item.stop.after if isinstance(item.stop, StopAfter) else {"never": None, "first_failure": 1}[item.stop]
        )
        task = ExecuteTask(language, source, self.sha256, self.limits, stop_after, self.options, toolchain)
        num_runs = 2 if task.options.check_determinism else 1
        return execute_job(task, self.frame, task.limits.cpu_s * self.num_tests * num_runs, context, self.shard)


def execute_job(task: ExecuteTask, frame: bytes, cpu_s: float, context: RequestContext, shard: int = 0) -> Job:
    """The job of a task.

    Args:
        task: its language is a canonical name.
        frame: the encoded suite, which the job brings along.
        cpu_s: CPU-seconds that its runs may use, for the job's cost.
        context: whose deadline, lane and tenant the job has.
        shard: the index of the Redis that it goes to.
    """
    compile_cpu_s = MAX_COMPILE_CPU_S if BY_NAME[task.language].compile else 0.0
    return Job(
        execute_job_id(task),
        "execute",
        EXECUTE_QUEUE,
        context.lane,
        encode(task),
        cpu_s + compile_cpu_s,
        context.deadline_ms,
        (task.suite, frame),
        tenant=context.tenant,
        shard=shard,
    )


class ExecutePlan:
    """The groups of a request.

    Args:
        groups: one per item.
        toolchain: that the jobs are admitted for.
        early_stop: whether the rest of a group is taken back once one of its programs passes everything.
    """

    def __init__(self, groups: list[ExecuteGroup], toolchain: str, *, early_stop: bool = False) -> None:
        self.groups = groups
        self.toolchain = toolchain
        self.early_stop = early_stop

    @classmethod
    async def make(
        cls,
        items: Sequence[ExecuteItem],
        dispatcher: Dispatcher,
        context: RequestContext,
        *,
        early_stop: bool = False,
        shards: Sequence[int] | None = None,
    ) -> ExecutePlan:
        """Resolve the suites and make the jobs, which bring them along. Raises TestsetUnknown.

        `shards`: of the groups; None: each is placed by its suite.
        """
        toolchain = dispatcher.fleet.toolchain
        stored = await _stored_suites(
            {item.tests.sha256 for item in items if isinstance(item.tests, RefTests)}, dispatcher
        )

        def group(index: int, item: ExecuteItem) -> ExecuteGroup:
            tests = item.tests
            suite = stored[tests.sha256] if isinstance(tests, RefTests) else EncodedSuite.of(tests)
            shard = dispatcher.shards.place("suite", suite.sha256) if shards is None else shards[index]
            return ExecuteGroup(item, suite, toolchain, context, shard)

        groups = await off_loop(lambda: [group(index, item) for index, item in enumerate(items)])
        return cls(groups, toolchain, early_stop=early_stop)

    def __len__(self) -> int:
        return len(self.groups)

    def jobs(self) -> list[Job]:
        return [job for group in self.groups for job in group.jobs if isinstance(job, Job)]

    async def result(self, submission: Submission, index: int) -> ExecuteResult:
        group = self.groups[index]
        job_ids = {job.id for job in group.jobs if isinstance(job, Job)}
        if self.early_stop:
            replies = await submission.replies_until(job_ids, _passed_everything)
        else:
            replies = await submission.replies(job_ids)
        programs = [job if isinstance(job, ProgramResult) else to_program_result(replies[job.id]) for job in group.jobs]
        slow_samples.executed(group.item, index, (group.sha256, group.num_tests), group.jobs, replies, programs)
        pass_rates = [program.pass_rate if program.status == "ok" else None for program in programs]
        return ExecuteResult(id=group.item.id, best=best_index(pass_rates), programs=programs)


async def _stored_suites(digests: set[str], dispatcher: Dispatcher) -> dict[str, EncodedSuite]:
    """Stored suites by digest; each is fetched and read once. Raises TestsetUnknown."""
    suites = {}
    for sha256 in sorted(digests):
        frame = await dispatcher.shards.get_suite(sha256)
        if frame is None:
            raise TestsetUnknown(f"no test set {sha256} is stored; PUT /testsets/{sha256} first")
        if len(frame) > SMALL_BYTES:
            suites[sha256] = await in_thread(EncodedSuite.stored, sha256, frame)
        else:
            suites[sha256] = EncodedSuite.stored(sha256, frame)
    return suites


def _passed_everything(reply: Reply) -> bool:
    return isinstance(reply.body, Executed) and reply.body.report.verdict is Verdict.PASSED


def to_program_result(reply: Reply) -> ProgramResult:
    """A job's ending as the contract tells it."""
    body = reply.body
    if isinstance(body, Failed):
        return ProgramResult(status=body.state.value, trainable=False, error=problem_of(body))  # type: ignore[arg-type]
    assert isinstance(body, Executed)
    return result_of(body.report, cached=reply.worker == "cache", toolchain=body.toolchain or None)
