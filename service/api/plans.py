"""A request as jobs, and replies as results: the bookkeeping between the contract's types and the queue's.

Equal completions of a group are one piece of work, and so are equal programs; what has been answered before is
recalled, not done again. Scores are remembered by completion (revision, prompt, text, overflow rule), executions by
the queue itself under the job's id (language, code, suite, limits, stop rule, options, toolchain).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from sandbox import types as sandbox
from sandbox.errors import UnsupportedLanguage
from sandbox.languages import resolve
from sandbox.recipes import BY_NAME
from service import metrics
from service.api.context import Context
from service.api.errand import Errand
from service.api.fleet import Fleet
from service.errors import RevisionMoved, TestsetUnknown
from service.extract import last_fence
from service.jobs import (
    Executed,
    ExecuteTask,
    Failed,
    Job,
    Reply,
    Scored,
    ScoreTask,
    decode_suite,
    digest,
    encode,
    encode_suite,
    num_tests,
    score_job_id,
)
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.producer import Queue, Remembered
from service.schemas import (
    AssertTests,
    CheckTests,
    CompileResult,
    CompletionScore,
    ExecuteItem,
    ExecuteResult,
    FunctionTests,
    ModelRef,
    Problem,
    ProgramResult,
    Prompt,
    RefTests,
    ScoreItem,
    ScoreResult,
    ScriptTests,
    StdioTests,
    StopAfter,
    TestResult,
    Tests,
)
from service.settings import Settings

BYTES_PER_TOKEN = 3  # for the estimate at the door; the worker counts
ONE_STEP = 64  # completions that are looked up by the step that admits them; the broker serves nobody else meanwhile
COMPILE_CPU_S = 15.0  # at most, where there is a compiler


def _problem(failed: Failed) -> Problem:
    return Problem(code=failed.code, detail=failed.detail, retryable=failed.retryable)


# --- scoring ---------------------------------------------------------------------------------------------------------


class _Entry(msgspec.Struct, frozen=True):
    """A remembered score."""

    score: float
    tokens: int
    truncated: bool
    pass_probability: float | None
    steps: list[float] | None = None


_entry_decoder = msgspec.msgpack.Decoder(_Entry)


class WholeTexts(ScoreItem):
    """Completions that are whole texts, written by somebody else's template: scored as they are, no prompt added."""

    prompt: Prompt = ""


class ScoreGroup:
    """One item: its unique completions, those known already, and the job for the rest."""

    def __init__(self, item: ScoreItem, model: str, revision: str, on_overflow: Any) -> None:
        self.item = item
        self.prompt = None if isinstance(item, WholeTexts) else _plain(item.prompt)
        self.on_overflow = on_overflow
        self.model = model
        self.unique = list(dict.fromkeys(item.completions))
        prefix = digest("score", revision, self.prompt, on_overflow)
        self.keys = {text: digest(prefix, text) for text in self.unique}
        self.known: dict[str, _Entry] = {}
        self.job: Job | None = None

    @property
    def missing(self) -> list[str]:
        return [text for text in self.unique if text not in self.known]

    def make_job(self, revision: str, context: Context) -> Job | None:
        missing = self.missing
        if not missing:
            self.job = None
            return None
        task = encode(ScoreTask(self.model, revision, self.prompt, missing, self.on_overflow))
        cost = len(encode(self.prompt)) * len(missing) + sum(len(text.encode()) for text in missing)
        self.job = Job(score_job_id(task), "score", queue_of_model(self.model), context.lane, task,
                       cost / BYTES_PER_TOKEN + len(missing), context.deadline_ms, tag=revision,
                       tenant=context.tenant)  # fmt: skip
        return self.job


class ScorePlan:
    """The groups of a request under one revision; scores that are remembered are not asked for again.

    `submit`, `recall`, the errand's `submit` and `item` raise RevisionMoved when another revision has taken over and
    this one cannot score any more: the whole request begins anew, so that no answer has two.
    """

    def __init__(self, model: str, revision: str, items: Sequence[ScoreItem], on_overflow: str,
                 calibrated: bool) -> None:  # fmt: skip
        self.model = model
        self.revision = revision
        self.calibrated = calibrated
        self.groups = [ScoreGroup(item, model, revision, on_overflow) for item in items]

    async def submit(self, errand: Errand, queue: Queue) -> None:
        """Have scored what has not been scored before; in one step with the look-up where nothing has."""
        keys = self._keys(queue)
        if len(keys) > ONE_STEP or queue.remembers(keys) or errand.hopeless(queue_of_model(self.model)):
            await self.recall(queue)
        else:
            try:
                await errand.submit(self.jobs(errand.context), unless=keys)
                return
            except Remembered as known:
                self._learn(known.frames)
        await errand.submit(self.jobs(errand.context))

    async def recall(self, queue: Queue) -> None:
        """Look up what has been scored before under this revision, which must still be the active one."""
        self._learn(await queue.recall(queue_of_model(self.model), self.revision, self._keys(queue)))

    def _keys(self, queue: Queue) -> list[str]:
        return [self._cache_key(queue, group.keys[text]) for group in self.groups for text in group.unique]

    def _learn(self, frames: Sequence[bytes | None]) -> None:
        """What was remembered under each of `_keys`."""
        wanted = [(group, text) for group in self.groups for text in group.unique]
        for (group, text), frame in zip(wanted, frames, strict=True):
            if frame is not None:
                group.known[text] = _entry_decoder.decode(frame)
                metrics.cache_hits.labels("score").inc()

    def jobs(self, context: Context) -> list[Job]:
        return [job for group in self.groups if (job := group.make_job(self.revision, context))]

    async def item(self, errand: Errand, index: int, queue: Queue, keep_s: int) -> ScoreResult:
        """Wait for one item and answer it."""
        group = self.groups[index]
        if group.job is None:
            return self._result(group, {}, None)
        reply = await errand.reply(group.job.id)
        if not isinstance(reply.body, Scored):
            assert isinstance(reply.body, Failed)
            if reply.body.code == RevisionMoved.code and not errand.context.told:
                raise RevisionMoved(reply.body.detail)
            return self._result(group, {}, reply.body)
        scored = reply.body
        fresh: dict[str, _Entry | Problem] = {}
        for at, text in enumerate(group.missing):
            score, problem = scored.scores[at], scored.problems[at]
            if score is None:
                code, _, detail = (problem or "invalid: no score").partition(": ")
                fresh[text] = Problem(code=code, detail=detail)
            else:
                fresh[text] = _Entry(score, scored.tokens[at], scored.truncated[at], scored.pass_probabilities[at],
                                     scored.steps[at] if scored.steps else None)  # fmt: skip
        found = {self._cache_key(queue, group.keys[text]): encode(entry)
                 for text, entry in fresh.items() if isinstance(entry, _Entry)}  # fmt: skip
        queue.remember(found, keep_s)
        return self._result(group, fresh, None)

    def model_ref(self) -> ModelRef:
        return ModelRef(name=self.model, revision=self.revision)

    @staticmethod
    def _cache_key(queue: Queue, key: str) -> str:
        return f"{queue.keys.prefix}score:{key}"

    def _result(self, group: ScoreGroup, fresh: dict[str, _Entry | Problem], failed: Failed | None) -> ScoreResult:
        completions = []
        for text in group.item.completions:
            entry = group.known.get(text) or fresh.get(text)
            if isinstance(entry, _Entry):
                completions.append(CompletionScore(
                    status="ok", score=entry.score, tokens=entry.tokens, truncated=entry.truncated, trainable=True,
                    cached=text in group.known, steps=entry.steps,
                    pass_probability=entry.pass_probability if self.calibrated else None,
                ))  # fmt: skip
            elif isinstance(entry, Problem):
                completions.append(_no_score("invalid", entry))
            else:
                assert failed is not None
                completions.append(_no_score(failed.state.value, _problem(failed)))
        return ScoreResult(id=group.item.id, best=best([one.score for one in completions]), completions=completions)


def _no_score(status: Any, problem: Problem) -> CompletionScore:
    return CompletionScore(status=status, score=None, pass_probability=None, steps=None, trainable=False, error=problem)


def _plain(prompt: Prompt) -> str | list[dict[str, str]]:
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]


def best(values: Sequence[float | None]) -> int | None:
    """Index of the highest value, the first of equals; None where there is none."""
    return max((at for at, value in enumerate(values) if value is not None),
               key=lambda at: (values[at], -at), default=None)  # fmt: skip


# --- executing -------------------------------------------------------------------------------------------------------


def to_suite(tests: Tests) -> sandbox.Suite:
    """The contract's test kinds in the sandbox's types (`ref` is resolved before)."""
    if isinstance(tests, AssertTests):
        return sandbox.AssertSuite(tuple(tests.asserts), tests.setup, tests.entry_point)
    if isinstance(tests, FunctionTests):
        cases = tuple(sandbox.Case(tuple(case.args), case.kwargs, case.expected) for case in tests.cases)
        return sandbox.FunctionSuite(tests.entry_point, cases, tests.rel_tol)
    if isinstance(tests, CheckTests):
        return sandbox.CheckSuite(tests.test, tests.entry_point, tests.prompt)
    if isinstance(tests, ScriptTests):
        return sandbox.ScriptSuite(tests.source, tests.position)
    assert isinstance(tests, StdioTests)
    stdio = tuple(sandbox.StdioCase(case.stdin, case.stdout) for case in tests.cases)
    return sandbox.StdioSuite(stdio, tests.compare, tests.rel_tol)


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
            return ProgramResult(status="ok", verdict=sandbox.Verdict.NO_CODE, passed=0, total=self.total,
                                 pass_rate=0.0, trainable=True)  # fmt: skip
        try:
            language = resolve(item.language)
        except UnsupportedLanguage as error:
            problem = Problem(code="language_unknown", detail=str(error))
            return ProgramResult(status="invalid", trainable=False, error=problem)
        after = item.stop.after if isinstance(item.stop, StopAfter) else {"never": None, "first_failure": 1}[item.stop]
        task = ExecuteTask(language, source, self.sha256, self.limits, after, self.options)
        return execute_job(task, self.frame, self.total, toolchain, context)


def execute_job(task: ExecuteTask, frame: bytes, total: int, toolchain: str, context: Context) -> Job:
    """A task with its suite's frame, which holds `total` tests. The task's language is a canonical name."""
    times = 2 if task.options.check_determinism else 1
    cost = task.limits.cpu_s * total * times + (COMPILE_CPU_S if BY_NAME[task.language].compile else 0.0)
    content = encode(task)
    return Job(digest("execute", toolchain, content), "execute", EXECUTE_QUEUE, context.lane, content, cost,
               context.deadline_ms, (task.suite, frame), tenant=context.tenant)  # fmt: skip


class ExecutePlan:
    def __init__(self, groups: list[ExecuteGroup], toolchain: str) -> None:
        self.groups = groups
        self.toolchain = toolchain

    @classmethod
    async def make(cls, items: Sequence[ExecuteItem], fleet: Fleet, queue: Queue, settings: Settings,
                   context: Context) -> ExecutePlan:  # fmt: skip
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
    return isinstance(reply.body, Executed) and reply.body.report.verdict is sandbox.Verdict.PASSED


def to_program_result(reply: Reply) -> ProgramResult:
    body = reply.body
    if isinstance(body, Failed):
        return ProgramResult(status=body.state.value, trainable=False, error=_problem(body))  # type: ignore[arg-type]
    assert isinstance(body, Executed)
    report = body.report
    return ProgramResult(
        status="ok", verdict=report.verdict, passed=report.passed, total=report.total, pass_rate=report.pass_rate,
        trainable=True, cached=reply.worker == "cache", judge=report.judge, isolation=report.isolation,
        compile=None if report.compile is None else CompileResult(**asdict(report.compile)),
        tests=[TestResult(**{name: getattr(test, name) for name in TestResult.model_fields}) for test in report.tests],
        flags=list(report.flags),
    )  # fmt: skip
