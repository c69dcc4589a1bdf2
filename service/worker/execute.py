"""The executing worker: one program and its suite at a time through the sandbox; the verdict returns as a value."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Any

import msgspec

from plaudit.grading import TIMING_VERDICTS
from plaudit.languages import UnsupportedKind, UnsupportedLanguage
from sandbox.errors import Interrupted, InvalidOptions, InvalidSuite, ModuleUnavailable, SandboxError
from sandbox.judge import judge
from sandbox.judge.missing_modules import FLAG
from sandbox.judge.observe import BUDGET_SPENT
from sandbox.run_records import RunRecord
from sandbox.sandbox import Sandbox
from sandbox.types import Program, Report, Stop, Suite
from sandbox.vm.vm_sandbox import VmSandbox
from service import metrics, slowness, tracing
from service.jobs import (
    SUITE_KINDS,
    Executed,
    ExecuteTask,
    Failed,
    JobState,
    Kind,
    Lane,
    decode_suite,
    encode,
    execute_job_id,
)
from service.queue.consumer import FinishedJob, Lease
from service.queue.keys import EXECUTE_QUEUE
from service.queue.protocol import now_ms
from service.settings import Settings
from service.worker.batch import JobBatch
from service.worker.loop import WorkerContext, failure

log = logging.getLogger("plaudit.execute")

LARGE_REPORT_BYTES = 64 * 1024
LARGE_REPORT_MS = 60_000
MAX_MODULES = 100  # label values of one metric
INVALID_CODES = (  # of what is wrong with a task, the narrower class first
    (ModuleUnavailable, "module_unavailable"),
    (InvalidOptions, "invalid_options"),
    (InvalidSuite, "invalid_tests"),
    (UnsupportedKind, "kind_unavailable"),
    (UnsupportedLanguage, "language_unavailable"),
)
SLOW_MS = 20.0  # of a job that took longer, the answer says where the time went
MAX_SUITES = 64  # decoded suites kept: a group's programs share one
MAX_SUITES_BYTES = 64 * 1024 * 1024  # of their frames


class ExecuteRunner:
    """One job after the other, of those it has in hand. A job that is cancelled while it runs is interrupted."""

    kind: Kind = "execute"
    takes_share = True

    def __init__(self, settings: Settings, sandbox: Sandbox | VmSandbox) -> None:
        self.queues = [EXECUTE_QUEUE]
        self.stuck_after_s = settings.max_deadline_ms / 1000  # a long suite of slow tests is one step
        self.sandbox = sandbox
        self.runs: list[RunRecord] = []  # of the job that is worked on
        sandbox.on_run = self.runs.append
        self._lease_lock = threading.Lock()  # a cancellation comes from the heartbeat's thread
        self._lease: Lease | None = None
        self.batch = JobBatch()
        self.cache_ms = settings.cache_s * 1000
        self.missing: set[str] = set()  # modules that a metric has a series for
        self.suites: OrderedDict[str, tuple[Suite, int]] = OrderedDict()  # and the size of its frame
        self.info: dict[str, Any] = {
            "doing": None,
            "num_done": 0,
            "isolation": sandbox.level,
            "toolchain": sandbox.toolchain_digest,
            "suites": list(SUITE_KINDS),
            "languages": [
                {
                    "name": language.name,
                    "version": language.version,
                    "aliases": list(language.aliases),
                    "kinds": list(language.kinds),
                    "variants": {name: list(spellings) for name, spellings in language.variants.items()},
                    "packages": [
                        {"name": name, "version": version} for name, version in sandbox.packages(language.name)
                    ],
                }
                for language in sandbox.languages()
            ],
        }

    def on_cancelled(self, lease: Lease) -> None:
        with self._lease_lock:
            if self._lease is not None and self._lease.key == lease.key:
                self.sandbox.interrupt.set()
                return
        self.batch.cancel(lease)

    @property
    def num_held(self) -> int:
        return self.batch.num_waiting

    def reset(self) -> list[Lease]:
        return []

    def capacity(self) -> int:
        return self.batch.capacity()

    def takes(self, queue: str, lane: Lane) -> bool:
        return True

    def step(self, leases: list[Lease], context: WorkerContext) -> None:
        self.batch.start(leases, context)
        try:
            while (lease := self.batch.next()) is not None:
                with self._lease_lock:
                    self._lease = lease
                    self.sandbox.interrupt.clear()
                self.batch.finished(self._traced(lease, context))
        finally:
            self.info["doing"] = None
            self.batch.close()

    def _traced(self, lease: Lease, context: WorkerContext) -> FinishedJob | None:
        """`_run` under a span of the request's trace, and said in the announcement while it lasts."""
        task = lease.task
        assert isinstance(task, ExecuteTask)
        self.info["doing"] = {"job": lease.id[:16], "since_ms": now_ms(), "language": task.language}
        self.runs.clear()
        began_s = time.monotonic()
        if tracing.is_on():
            queued_s = max(0, now_ms() - lease.queued_ms) / 1000
            tracing.record("wait in the queue", began_s - queued_s, began_s, parent=lease.trace, queue=lease.queue)
        with tracing.span("execute", parent=lease.trace, kind="consumer", began_s=began_s) as span:
            finished = self._run(lease, context)
            if span:
                for run in self.runs:
                    tracing.record(
                        f"run {run.purpose}", run.began_s, run.ended_s, cpu_ms=run.cpu_ms, starved_ms=run.starved_ms
                    )
                span.set(job=lease.id, language=task.language, deliveries=lease.deliveries)
                body = None if finished is None else finished.body
                if isinstance(body, Executed):
                    report = body.report
                    span.set(verdict=report.verdict.value, passed=report.passed, total=report.total)
                elif isinstance(body, Failed):
                    span.fail(body.code)
        self.info["num_done"] += 1
        return finished

    def _run(self, lease: Lease, context: WorkerContext) -> FinishedJob | None:
        """How the job ended; None: it was cancelled."""
        task = lease.task
        assert isinstance(task, ExecuteTask)
        started, began = now_ms(), time.perf_counter()
        try:
            suite = self._suite(task.suite, context)
        except (KeyError, msgspec.ValidationError):
            problem = failure("suite_unreadable", "this executor is of another version and cannot read the test suite")
            return FinishedJob(lease, problem, 0, 0.0, started)
        if suite is None:
            return FinishedJob(lease, failure("testset_lost", "the test suite has expired"), 0, 0.0, started)
        try:
            report = self._judge(task, suite)
        except (InvalidSuite, UnsupportedLanguage) as error:
            code = next(code for kind, code in INVALID_CODES if isinstance(error, kind))
            if isinstance(error, ModuleUnavailable):
                self._count_missing(error.modules)
            return FinishedJob(lease, Failed(JobState.INVALID, code, str(error), False), 0, 0.0, started)
        except Interrupted:
            log.info("job interrupted: it was cancelled", extra={"job": lease.id})
            context.drop(lease)
            return None
        except SandboxError as error:
            log.exception("sandbox failed", extra={"job": lease.id})
            return FinishedJob(lease, failure("sandbox", str(error)), 0, 0.0, started)
        _count(task.language, report)
        self._count_missing([flag.removeprefix(FLAG) for flag in report.flags if flag.startswith(FLAG)])
        body = Executed(report, self.sandbox.toolchain_digest)
        compute_ms = (time.perf_counter() - began) * 1000
        parts = slowness.of_runs(self.runs, compute_ms) if compute_ms > SLOW_MS else None
        return FinishedJob(lease, body, self._cache_ms(body), compute_ms, started, self._cache_as(task), parts)

    def _count_missing(self, modules: list[str]) -> None:
        """Count programs by the module that they lack; beyond `MAX_MODULES` names as `other`."""
        for module in modules:
            if len(self.missing) < MAX_MODULES:
                self.missing.add(module)
            metrics.module_unavailable.labels(module if module in self.missing else "other").inc()

    def _cache_as(self, task: ExecuteTask) -> str:
        """The id under which the answer is cached: not the job's own if it was admitted for another toolchain.

        While a fleet changes its toolchain any executor takes any job, so that none waits; the result names the
        toolchain that judged.
        """
        own = self.sandbox.toolchain_digest
        return "" if task.toolchain == own else execute_job_id(msgspec.structs.replace(task, toolchain=own))

    def _cache_ms(self, body: Executed) -> int:
        """How long the answer is cached; a large one only until its client's retries are over, to save memory."""
        report = body.report
        depends_on_time = report.verdict in TIMING_VERDICTS or any(
            test.verdict in TIMING_VERDICTS or test.outcome == BUDGET_SPENT for test in report.tests
        )
        if depends_on_time or "nondeterministic" in report.flags or len(report.tests) < report.total:
            return 0
        return min(self.cache_ms, LARGE_REPORT_MS) if len(encode(body)) > LARGE_REPORT_BYTES else self.cache_ms

    def _judge(self, task: ExecuteTask, suite: Suite) -> Report:
        """One judgement; a sandbox error is retried once before it becomes the answer."""
        try:
            return self._judge_once(task, suite)
        except (InvalidSuite, UnsupportedLanguage, Interrupted):
            raise
        except SandboxError:
            log.warning("sandbox failed; trying once more", exc_info=True)
            return self._judge_once(task, suite)

    def _judge_once(self, task: ExecuteTask, suite: Suite) -> Report:
        program, stop = Program(task.language, task.source), Stop(task.stop_after)
        if isinstance(self.sandbox, VmSandbox):
            return self.sandbox.judge(program, suite, task.limits, stop, task.options)
        return judge(program, suite, task.limits, stop, self.sandbox, task.options)

    def _suite(self, sha256: str, context: WorkerContext) -> Suite | None:
        if sha256 in self.suites:
            self.suites.move_to_end(sha256)
            return self.suites[sha256][0]
        frame = context.suite(sha256)
        if frame is None:
            return None
        suite = decode_suite(frame)
        self.suites[sha256] = suite, len(frame)
        while len(self.suites) > MAX_SUITES or sum(size for _, size in self.suites.values()) > MAX_SUITES_BYTES:
            self.suites.popitem(last=False)
        return suite


def _count(language: str, report: Report) -> None:
    metrics.verdicts.labels(language, report.verdict.value).inc()
    for flag in report.flags:
        metrics.flags.labels(flag.partition(":")[0]).inc()
    for test in report.tests:
        metrics.tests.labels(test.verdict.value).inc()
