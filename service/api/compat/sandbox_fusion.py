"""SandboxFusion's `/run_code`: what verl, ROLL and the `sandbox-fusion` package post, one program and one stdin a call.

The client compares outputs itself, so nothing is judged here. verl tries again after 504 only, three times in all, and
takes every other refusal for a failed test. So 504 it is, and not before the client's patience is nearly over: an
outage of a minute passes unnoticed. Programs are not refused: one that is too large has failed, as one that does not
compile has, and one that no worker survives is a `SandboxError`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field

from plaudit.errors import Invalid, Poisoned, TooLarge
from sandbox.types import Report
from service.api.compat.base import Dialect, Loose, Text, Visit
from service.api.compat.runs import told
from service.api.handlers.run import Order

DIALECT = Dialect(
    "sandbox_fusion",
    "verl `reward.sandbox_fusion.url`, ROLL `code_sandbox`, `sandbox-fusion` package",
    deadline_s=27,
    sheds=504,
)
SLACK_S = 7.0  # beyond the two timeouts; verl waits ten seconds beyond them
ROLL_S = 27.0  # ROLL reads for 30 s whatever the timeouts are
WALL_SLACK_S = 3.0  # a run is stopped by its CPU time; sleeping and waiting may take this much longer
MAX_DEADLINE_S = 600.0


class RunCode(Loose):
    code: Text
    language: str
    compile_timeout: float = 10
    run_timeout: float = 10
    memory_limit_MB: int = -1
    stdin: Text | None = None
    files: dict[str, str | None] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)
    expected_stdout: Any = None  # ROLL says so and compares by itself

    def deadline_s(self) -> float:
        """Below the client's own patience; ROLL's is fixed, and it is known by a field that only it sends."""
        if "expected_stdout" in self.model_fields_set:
            return ROLL_S
        return min(self.compile_timeout + self.run_timeout + SLACK_S, MAX_DEADLINE_S)

    def order(self, visit: Visit) -> Order:
        """The run, stopped early enough for its end to be told in time."""
        wall_s = min(self.run_timeout + WALL_SLACK_S, max(1.0, self.deadline_s() - 4))
        memory_mb = self.memory_limit_MB if self.memory_limit_MB > 0 else None
        limits = visit.limits(min(self.run_timeout, wall_s), memory_mb, wall_s=wall_s)
        return Order(self.language, self.code, self.stdin or "", decoded(self.files), tuple(self.fetch_files), limits)


@DIALECT.router.post("/run_code")
async def run_code(request: Request, body: RunCode) -> JSONResponse:
    visit = Visit(request, body.deadline_s())
    try:
        report = await visit.alive(visit.patiently(lambda: visit.run(body.order(visit))))
    except TooLarge as error:
        return JSONResponse(refused(error.detail))
    except Poisoned as error:
        return JSONResponse(refused(error.detail) | {"status": "SandboxError"})
    return JSONResponse(answer(report))


@DIALECT.router.get("/v1/ping")
async def ping() -> PlainTextResponse:
    return PlainTextResponse('"pong"', media_type="application/json")


def decoded(files: dict[str, str | None]) -> tuple[tuple[str, bytes], ...]:
    """Files by name from base64. Raises Invalid."""
    try:
        return tuple((name, base64.b64decode(text or "", validate=True)) for name, text in files.items())
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"files: not base64: {error}") from None


def answer(report: Report) -> dict[str, Any]:
    """A report as `RunCodeResponse`."""
    run, files = told(report), report.output.files if report.output is not None else {}
    ok = run is not None and run.exit_code == 0 and not run.timed_out
    compiled = None
    if report.compile is not None:
        compiled = {
            "status": "Finished",
            "execution_time": report.compile.wall_ms / 1000,
            "return_code": 0 if report.compile.ok else 1,
            "stdout": report.compile.stdout,
            "stderr": report.compile.stderr,
        }
    result = None
    if run is not None:
        result = {
            "status": "TimeLimitExceeded" if run.timed_out else "Finished",
            "execution_time": run.seconds,
            "cpu_time": run.cpu_s,
            "return_code": None if run.timed_out else run.exit_code,
            "stdout": run.stdout,
            "stderr": "\n".join(part for part in (run.stderr, run.note) if part),
        }
    return {
        "status": "Success" if ok else "Failed",
        "message": run.note if run is not None else "",
        "compile_result": compiled,
        "run_result": result,
        "executor_pod_name": None,
        "files": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }


def refused(why: str) -> dict[str, Any]:
    """A program that was not run because of what it is: it has failed."""
    result = {
        "status": "Error",
        "execution_time": 0.0,
        "cpu_time": 0.0,
        "return_code": 1,
        "stdout": "",
        "stderr": f"plaudit: {why}",
    }
    return {
        "status": "Failed",
        "message": why,
        "compile_result": None,
        "run_result": result,
        "executor_pod_name": None,
        "files": {},
    }
