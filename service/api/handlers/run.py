"""Programs that are run and not judged: what a dialect asks when its client compares outputs by itself.

The native contract judges, so this is no route of its own: `Desk.run` answers with the sandbox's report, whose
`output` is whole up to the limits. Jobs are identified by content as everywhere, so a client that sends the same
program and stdin again (a retry, a second opinion, forty tests of one program) is answered from what is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from plaudit.errors import Invalid
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import LimitsSpec, ResultError, Status
from sandbox import types as sandbox
from service.api.dispatch.request_context import Context
from service.api.dispatch.submission import Errand
from service.api.handlers.execute import execute_job
from service.jobs import Executed, ExecuteTask, Failed, Job, Reply, encode_suite


@dataclass(frozen=True, slots=True)
class Order:
    """A program with what it reads. `files` (name, content) lie beside it, `fetch` is read back, `args` are argv."""

    language: str
    source: str
    stdin: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    fetch: tuple[str, ...] = ()
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """How it went: a report where `status` is "ok", a problem elsewhere."""

    status: Status
    report: sandbox.Report | None = None
    problem: ResultError | None = None
    cached: bool = False


class RunPlan:
    """The jobs of some orders, and their replies as results."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs

    @classmethod
    def make(cls, orders: Sequence[Order], toolchain: str, context: Context) -> RunPlan:
        """Raises Invalid for a language that does not exist."""
        jobs = []
        for order in orders:
            try:
                language = resolve(order.language)
            except UnsupportedLanguage as error:
                raise Invalid(f"language: {error}") from None
            frame = encode_suite(sandbox.RunSuite(order.stdin, order.files, order.fetch, order.args))
            limits = sandbox.Limits(**order.limits.model_dump())
            sha256 = hashlib.sha256(frame).hexdigest()
            task = ExecuteTask(language, order.source, sha256, limits, toolchain=toolchain)
            jobs.append(execute_job(task, frame, 1, context))
        return cls(jobs)

    async def results(self, errand: Errand) -> list[Ran]:
        """Wait for all; in order."""
        replies = await errand.replies({job.id for job in self.jobs})
        return [_ran(replies[job.id]) for job in self.jobs]


def _ran(reply: Reply) -> Ran:
    body = reply.body
    if isinstance(body, Failed):
        problem = ResultError(code=body.code, detail=body.detail, retryable=body.retryable)
        return Ran(body.state.value, problem=problem)  # type: ignore[arg-type]
    assert isinstance(body, Executed)
    return Ran("ok", body.report, cached=reply.worker == "cache")
