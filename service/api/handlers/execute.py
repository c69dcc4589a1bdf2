"""An executing request as jobs, and replies as results: the bookkeeping between the contract's types and the queue's.

Equal programs are one piece of work; what has been answered before is recalled by the queue itself, under the job's id:
language, code, suite, limits, stop rule, options, toolchain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

from plaudit.errors import TestsetUnknown
from plaudit.extract import last_fence
from plaudit.grading import Verdict
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import (
    AssertTests,
    CheckTests,
    CompileResult,
    ExecuteItem,
    ExecuteResult,
    FunctionTests,
    HelperProgram,
    ProgramResult,
    PytestTests,
    RefTests,
    ResultError,
    ScriptTests,
    StdioTests,
    StopAfter,
    TestResult,
    Tests,
    UnittestTests,
)
from sandbox import types as sandbox
from sandbox.language_specs import BY_NAME
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.request_context import Context
from service.api.dispatch.submission import Errand
from service.api.handlers.score import best, told
from service.jobs import (
    Executed,
    ExecuteTask,
    Failed,
    Job,
    Reply,
    decode_suite,
    encode,
    encode_suite,
    execute_job_id,
    num_tests,
)
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Queue
from service.settings import Settings

COMPILE_CPU_S = 15.0  # at most, where there is a compiler


def to_suite(tests: Tests) -> sandbox.Suite:
    """The contract's test kinds in the sandbox's types (`ref` is resolved before)."""
    if isinstance(tests, AssertTests):
        return sandbox.AssertSuite(tuple(tests.asserts), tests.setup, tests.entry_point, tests.prelude)
    if isinstance(tests, FunctionTests):
        cases = tuple(
            sandbox.Case(tuple(case.args), case.kwargs, case.expected, tuple(case.also)) for case in tests.cases
        )
        return sandbox.FunctionSuite(tests.entry_point, cases, tests.rel_tol, tests.prelude)
    if isinstance(tests, CheckTests):
        return sandbox.CheckSuite(tests.test, tests.entry_point, tests.prompt, tests.prelude)
    if isinstance(tests, PytestTests | UnittestTests):
        kind = sandbox.PytestSuite if isinstance(tests, PytestTests) else sandbox.UnittestSuite
        return kind(tests.source, tuple(sorted(tests.files.items())), tests.entry_point, tests.prelude)
    if isinstance(tests, ScriptTests):
        return sandbox.ScriptSuite(tests.source, tests.position, tests.prelude)
    assert isinstance(tests, StdioTests)
    stdio = tuple(
        sandbox.StdioCase(
            case.stdin,
            case.stdout if isinstance(case.stdout, str) else tuple(case.stdout),
            tuple(sorted(case.files.items())),
        )
        for case in tests.cases
    )
    return sandbox.StdioSuite(
        stdio, tests.compare, tests.rel_tol, _helper(tests.checker), _helper(tests.interactor), tests.prelude
    )


def _helper(program: HelperProgram | None) -> sandbox.Program | None:
    return None if program is None else sandbox.Program(program.language, program.source)


class ExecuteGroup:
    """One item: a suite and, per program, a job or the result that is known without one."""

    def __init__(self, item: ExecuteItem, frame: bytes, sha256: str, toolchain: str, context: Context) -> None:
        self.item = item
        self.frame, self.sha256 = frame, sha256
        self.total = num_tests(decode_suite(frame))
        self.limits = sandbox.Limits(**item.limits.model_dump())
        self.options = sandbox.Options(**item.options.model_dump())
        self.jobs: list[Job | ProgramResult] = [self._job(text, toolchain, context) for text in item.programs]

    def _job(self, text: str, toolchain: str, context: Context) -> Job | ProgramResult:
        item = self.item
        source = text if item.extract == "none" else last_fence(text)
        if source is None:
            return ProgramResult(
                status="ok", verdict=Verdict.NO_CODE, passed=0, total=self.total, pass_rate=0.0, trainable=True
            )
        try:
            language = resolve(item.language)
        except UnsupportedLanguage as error:
            problem = ResultError(code="language_unknown", detail=str(error))
            return ProgramResult(status="invalid", trainable=False, error=problem)
        after = item.stop.after if isinstance(item.stop, StopAfter) else {"never": None, "first_failure": 1}[item.stop]
        task = ExecuteTask(language, source, self.sha256, self.limits, after, self.options, toolchain)
        return execute_job(task, self.frame, self.total, context)


def execute_job(task: ExecuteTask, frame: bytes, total: int, context: Context) -> Job:
    """A task with its suite's frame, which holds `total` tests. The task's language is a canonical name."""
    times = 2 if task.options.check_determinism else 1
    cost = task.limits.cpu_s * total * times + (COMPILE_CPU_S if BY_NAME[task.language].compile else 0.0)
    return Job(
        execute_job_id(task),
        "execute",
        EXECUTE_QUEUE,
        context.lane,
        encode(task),
        cost,
        context.deadline_ms,
        (task.suite, frame),
        tenant=context.tenant,
    )


class ExecutePlan:
    def __init__(self, groups: list[ExecuteGroup], toolchain: str) -> None:
        self.groups = groups
        self.toolchain = toolchain

    @classmethod
    async def make(
        cls, items: Sequence[ExecuteItem], fleet: Fleet, queue: Queue, settings: Settings, context: Context
    ) -> ExecutePlan:
        """Resolve suites and make the jobs, which bring them along. Raises TestsetUnknown."""
        toolchain = fleet.toolchain
        groups = []
        for item in items:
            if isinstance(item.tests, RefTests):
                sha256, stored = item.tests.sha256, await queue.get_suite(item.tests.sha256)
                if stored is None:
                    raise TestsetUnknown(f"no test set {sha256} is stored; PUT /testsets/{sha256} first")
                frame = stored
            else:
                frame = encode_suite(to_suite(item.tests))
                sha256 = hashlib.sha256(frame).hexdigest()
            groups.append(ExecuteGroup(item, frame, sha256, toolchain, context))
        return cls(groups, toolchain)

    def jobs(self) -> list[Job]:
        return [job for group in self.groups for job in group.jobs if isinstance(job, Job)]

    async def item(self, errand: Errand, index: int, *, early_stop: bool = False) -> ExecuteResult:
        """Wait for one item's programs. `early_stop`: once one passes everything, the others are taken back."""
        group = self.groups[index]
        waiting = {job.id for job in group.jobs if isinstance(job, Job)}
        if early_stop:
            replies = await errand.replies_until(waiting, _passed_everything)
        else:
            replies = await errand.replies(waiting)
        programs = [job if isinstance(job, ProgramResult) else to_program_result(replies[job.id]) for job in group.jobs]
        rates = [one.pass_rate if one.status == "ok" else None for one in programs]
        return ExecuteResult(id=group.item.id, best=best(rates), programs=programs)


def _passed_everything(reply: Reply) -> bool:
    return isinstance(reply.body, Executed) and reply.body.report.verdict is Verdict.PASSED


def to_program_result(reply: Reply) -> ProgramResult:
    body = reply.body
    if isinstance(body, Failed):
        return ProgramResult(status=body.state.value, trainable=False, error=told(body))  # type: ignore[arg-type]
    assert isinstance(body, Executed)
    report = body.report
    return ProgramResult(
        status="ok",
        verdict=report.verdict,
        passed=report.passed,
        total=report.total,
        pass_rate=report.pass_rate,
        trainable=True,
        cached=reply.worker == "cache",
        judge=report.judge,
        isolation=report.isolation,
        toolchain=body.toolchain or None,
        compile=None if report.compile is None else CompileResult(**asdict(report.compile)),
        tests=[TestResult(**{name: getattr(test, name) for name in TestResult.model_fields}) for test in report.tests],
        flags=list(report.flags),
    )
