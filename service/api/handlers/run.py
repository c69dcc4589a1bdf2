"""Programs that are run and not judged, for clients that compare outputs by themselves.

The native contract judges, so no native route does this: `RewardService.run` answers with the sandbox's report, whose
`output` is whole up to the limits. Jobs are identified by their content, as everywhere: the same program with the same
stdin is run once, however often it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from plaudit.errors import Invalid
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import LimitsSpec, ResultError, Status
from sandbox import types as sandbox
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.dispatch.submission import Submission
from service.api.handlers.execute import execute_job
from service.api.handlers.plan import problem_of
from service.jobs import Executed, ExecuteTask, Failed, Job, encode_suite


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A program with what it reads.

    Args:
        language: any name of it.
        source: the program.
        stdin: its standard input.
        files: names and contents of the files beside it.
        fetch: names of files that are read back.
        limits: of the run.
        args: its argv without argv[0].
    """

    language: str
    source: str
    stdin: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    fetch: tuple[str, ...] = ()
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunResult:
    """A report where `status` is "ok", a problem elsewhere."""

    status: Status
    report: sandbox.Report | None = None
    problem: ResultError | None = None
    cached: bool = False


class RunPlan:
    """One job per program."""

    def __init__(
        self, run_requests: Sequence[RunRequest], toolchain: str, context: RequestContext, shards: Shards
    ) -> None:
        """Raises Invalid for a language that does not exist."""
        self._jobs = [_run_job(run_request, toolchain, context, shards) for run_request in run_requests]

    def __len__(self) -> int:
        return len(self._jobs)

    def jobs(self) -> list[Job]:
        return self._jobs

    async def result(self, submission: Submission, index: int) -> RunResult:
        reply = await submission.reply(self._jobs[index].id)
        if isinstance(reply.body, Failed):
            return RunResult(reply.body.state.value, problem=problem_of(reply.body))  # type: ignore[arg-type]
        assert isinstance(reply.body, Executed)
        return RunResult("ok", reply.body.report, cached=reply.worker == "cache")


def _run_job(run_request: RunRequest, toolchain: str, context: RequestContext, shards: Shards) -> Job:
    try:
        language = resolve(run_request.language)
    except UnsupportedLanguage as error:
        raise Invalid(f"language: {error}") from None
    suite = sandbox.RunSuite(run_request.stdin, run_request.files, run_request.fetch, run_request.args)
    frame = encode_suite(suite)
    limits = sandbox.Limits(**run_request.limits.model_dump())
    sha256 = hashlib.sha256(frame).hexdigest()
    task = ExecuteTask(language, run_request.source, sha256, limits, toolchain=toolchain)
    return execute_job(task, frame, limits.cpu_s, context, shards.place("run", language, run_request.source, sha256))
