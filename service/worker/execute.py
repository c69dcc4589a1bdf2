"""The executing worker: one program and its suite at a time through the sandbox; the verdict goes back as a value."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Any

import msgspec

from plaudit.grading import TIMING_VERDICTS
from plaudit.languages import UnsupportedLanguage
from sandbox.errors import Interrupted, InvalidOptions, InvalidSuite, ModuleUnavailable, SandboxError
from sandbox.judge import judge
from sandbox.judge.missing_modules import FLAG
from sandbox.packages import packages
from sandbox.sandbox import Sandbox
from sandbox.types import Program, Report, Stop, Suite
from service import metrics
from service.jobs import Executed, ExecuteTask, Failed, JobState, Kind, decode_suite, encode, execute_job_id
from service.queue.consumer import Lease
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import now_ms
from service.settings import Settings
from service.worker.loop import Hands, failure

log = logging.getLogger("plaudit.execute")

LARGE_REPORT_BYTES = 64 * 1024
LARGE_REPORT_MS = 60_000
MAX_MODULES = 100  # series of one metric
MAX_SUITES = 64  # decoded suites kept: a group's programs share one
MAX_SUITES_BYTES = 64 * 1024 * 1024  # of their frames


class ExecuteWork:
    kind: Kind = "execute"
    held = 0

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self.queues = [EXECUTE_QUEUE]
        self.patience_s = settings.max_deadline_ms / 1000  # a long suite of slow tests is one step
        self.sandbox = sandbox
        self._at_work = threading.Lock()  # between the heartbeat's thread and the change from one job to the next
        self._lease: Lease | None = None
        self.cache_ms = settings.cache_s * 1000
        self.missing: set[str] = set()  # modules that a metric has a series for
        self.suites: OrderedDict[str, tuple[Suite, int]] = OrderedDict()  # and the size of its frame
        self.info: dict[str, Any] = {
            "isolation": sandbox.level,
            "toolchain": sandbox.toolchain_digest,
            "languages": [
                {
                    "name": one.name,
                    "version": one.version,
                    "aliases": list(one.aliases),
                    "kinds": list(one.kinds),
                    "variants": {name: list(spellings) for name, spellings in one.variants.items()},
                    "packages": [{"name": name, "version": version} for name, version in packages(one.name)],
                }
                for one in sandbox.languages()
            ],
        }

    def lost(self, lease: Lease) -> None:
        with self._at_work:
            if self._lease is not None and self._lease.key == lease.key:
                self.sandbox.interrupt.set()

    def abandon(self) -> list[Lease]:
        return []  # nothing is held between two steps

    def appetite(self) -> int:
        return 1

    def step(self, leases: list[Lease], hands: Hands) -> None:
        for lease in leases:
            with self._at_work:
                self._lease = lease
                self.sandbox.interrupt.clear()
            self._run(lease, hands)

    def _run(self, lease: Lease, hands: Hands) -> None:
        task = lease.task
        assert isinstance(task, ExecuteTask)
        started, began = now_ms(), time.perf_counter()
        suite = self._suite(task.suite, hands)
        if suite is None:
            hands.answer(lease, failure("testset_lost", "the test suite is no longer stored"), started_ms=started)
            return
        try:
            report = self._judge(task, suite)
        except (InvalidSuite, UnsupportedLanguage) as error:
            code = "invalid_tests" if isinstance(error, InvalidSuite) else "language_unavailable"
            code = "invalid_options" if isinstance(error, InvalidOptions) else code
            if isinstance(error, ModuleUnavailable):
                code = "module_unavailable"
                self._count_missing(error.modules)
            hands.answer(lease, Failed(JobState.INVALID, code, str(error), False), started_ms=started)
            return
        except Interrupted:
            log.info("job dropped: nobody waits for it", extra={"job": lease.id})
            hands.drop(lease)
            return
        except SandboxError as error:
            log.exception("sandbox failed", extra={"job": lease.id})
            hands.answer(lease, failure("sandbox", str(error)), started_ms=started)
            return
        _count(task.language, report)
        self._count_missing([flag.removeprefix(FLAG) for flag in report.flags if flag.startswith(FLAG)])
        body = Executed(report, self.sandbox.toolchain_digest)
        hands.answer(
            lease,
            body,
            cache_ms=self._cache_ms(body),
            cache_as=self._known_as(task),
            compute_ms=(time.perf_counter() - began) * 1000,
            started_ms=started,
        )

    def _count_missing(self, modules: list[str]) -> None:
        """Count programs by the module that they lack; past so many names as `other`."""
        for module in modules:
            if len(self.missing) < MAX_MODULES:
                self.missing.add(module)
            metrics.module_unavailable.labels(module if module in self.missing else "other").inc()

    def _known_as(self, task: ExecuteTask) -> str:
        """Under which identity the answer is remembered: not the job's own if that was admitted for another toolchain.

        While a fleet is changed from one to another any executor takes any job, so that none waits; whose verdict it
        is, is said with it.
        """
        own = self.sandbox.toolchain_digest
        return "" if task.toolchain == own else execute_job_id(msgspec.structs.replace(task, toolchain=own))

    def _cache_ms(self, body: Executed) -> int:
        """How long to remember it. A large one only until its caller's retries are over: memory is Redis'."""
        report = body.report
        timed = report.verdict in TIMING_VERDICTS or any(test.verdict in TIMING_VERDICTS for test in report.tests)
        if timed or "nondeterministic" in report.flags or len(report.tests) < report.total:
            return 0
        return min(self.cache_ms, LARGE_REPORT_MS) if len(encode(body)) > LARGE_REPORT_BYTES else self.cache_ms

    def _judge(self, task: ExecuteTask, suite: Suite) -> Report:
        """One judgement; the sandbox's own fault is tried once more before it is an answer."""
        program, stop = Program(task.language, task.source), Stop(task.stop_after)
        try:
            return judge(program, suite, task.limits, stop, self.sandbox, task.options)
        except (InvalidSuite, UnsupportedLanguage, Interrupted):
            raise
        except SandboxError:
            log.warning("sandbox failed once; trying again", exc_info=True)
            return judge(program, suite, task.limits, stop, self.sandbox, task.options)

    def _suite(self, sha256: str, hands: Hands) -> Suite | None:
        if sha256 in self.suites:
            self.suites.move_to_end(sha256)
            return self.suites[sha256][0]
        frame = hands.suite(sha256)
        if frame is None:
            return None
        suite = decode_suite(frame)
        self.suites[sha256] = suite, len(frame)
        while len(self.suites) > MAX_SUITES or sum(size for _, size in self.suites.values()) > MAX_SUITES_BYTES:
            self.suites.popitem(last=False)
        return suite


def _count(language: str, report: Report) -> None:
    metrics.verdicts.labels(language, report.verdict.value).inc()
    for test in report.tests:
        metrics.tests.labels(test.verdict.value).inc()
