"""Piston v2: `POST /api/v2/execute`, `GET /api/v2/runtimes`, as open-r1's Codeforces scorer posts to it.

A plain request runs the first file. A request that brings `input.txt` and `correct_output.txt` is a Codeforces test of
open-r1's own package: the program reads the input, and `run.stdout` is "1" or "0", by `checker.py` where it is given
and word by word elsewhere. IOI problems need their graders, which are not here. Times are milliseconds, memory bytes.
"""

from __future__ import annotations

import signal
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from sandbox.errors import UnsupportedLanguage
from sandbox.judge.compare import same_output
from sandbox.languages import resolve
from sandbox.types import Report
from service.api.dialects.dialect import Dialect, Loose, Text, Visit
from service.api.dialects.runs import told
from service.api.runs import Order
from service.errors import BadRequest, Poisoned
from service.schemas import LimitsSpec

DIALECT = Dialect("piston", "open-r1 `PISTON_ENDPOINTS` (Codeforces), Piston clients", deadline_s=27, sheds=503)
PREFIXES = ("cf_", "codeforces_")
FINE: dict[str, Any] = {"code": 0, "signal": None, "stdout": "", "stderr": "", "output": ""}
INPUT, EXPECTED, ACTUAL, CHECKER, CONFIG = (
    "input.txt", "correct_output.txt", "output.txt", "checker.py", "grader_config",
)  # fmt: skip
CHECK = f"""\
import runpy, sys
sys.argv = ["{CHECKER}", "{INPUT}", "{EXPECTED}", "{ACTUAL}"]
runpy.run_path("{CHECKER}", run_name="__main__")
"""


class File(Loose):
    content: Text
    name: str = ""


class Execute(Loose):
    language: str
    version: str = "*"
    files: list[File]
    stdin: Text = ""
    run_timeout: float | None = None
    run_memory_limit: float | None = None

    def named(self) -> dict[str, str]:
        """The files beside the program, by name."""
        return {file.name: file.content for file in self.files[1:] if file.name}


@DIALECT.router.get("/api/v2/runtimes")
async def runtimes(request: Request) -> JSONResponse:
    return JSONResponse([{"language": one.name, "version": one.version, "aliases": one.aliases}
                         for one in request.app.state.services.fleet.languages])  # fmt: skip


@DIALECT.router.post("/api/v2/execute")
async def execute(request: Request, body: Execute) -> JSONResponse:
    if not body.files:
        raise BadRequest("files: there is none to run")
    language = body.language
    for prefix in PREFIXES:
        language = language.removeprefix(prefix)
    try:
        language = resolve(language)
    except UnsupportedLanguage as error:
        raise BadRequest(f"{body.language}-{body.version} runtime is unknown: {error}") from None
    visit = Visit(request, DIALECT.deadline_s)
    files = body.named()
    graded = INPUT in files and EXPECTED in files
    work = _graded(visit, body, language, files) if graded else _plain(visit, body, language, files)
    try:
        compiled, run = await visit.alive(work)
    except Poisoned as error:
        compiled, run = FINE, {**FINE, "code": None, "signal": "SIGKILL", "stderr": f"plaudit: {error.detail}"}
    version = {one.name: one.version for one in visit.services.fleet.languages}.get(language, body.version)
    return JSONResponse({"language": body.language, "version": version, "compile": compiled, "run": run})


Stages = tuple[dict[str, Any], dict[str, Any]]


async def _plain(visit: Visit, body: Execute, language: str, files: dict[str, str]) -> Stages:
    limits = _limits(visit, (body.run_timeout or 3000) / 1000, None, body)
    order = Order(language, body.files[0].content, body.stdin, _bytes(files), limits=limits)
    report = await visit.run(order)
    return _compiled(report), _stage(report)


async def _graded(visit: Visit, body: Execute, language: str, files: dict[str, str]) -> Stages:
    """The program on its input, then the checker on what it printed."""
    config = dict(line.split("=", 1) for line in files.get(CONFIG, "").splitlines() if "=" in line)
    by_file = config.get("INPUT_MODE", "stdio").strip().lower() == "file"
    seconds = _number(config.get("TIME_LIMIT")) or (body.run_timeout or 3000) / 1000
    limits = _limits(visit, seconds, _number(config.get("MEMORY_LIMIT")), body)
    source = body.files[0].content
    order = Order(language, source, files[INPUT], limits=limits)
    if by_file:
        order = Order(language, source, files=_bytes({INPUT: files[INPUT]}), fetch=(ACTUAL,), limits=limits)
    report = await visit.run(order)
    run = told(report)
    if run is None or report.output is None:
        return _compiled(report), _stage(report)
    if run.exit_code != 0 or run.timed_out:
        return _compiled(report), {**FINE, "stdout": "0", "output": "0", "stderr": run.note or run.stderr[-2000:]}
    actual = report.output.files.get(ACTUAL, b"") if by_file else report.output.stdout
    if CHECKER not in files:
        right = "1" if same_output(actual, files[EXPECTED].encode(), "tokens") else "0"
        return _compiled(report), {**FINE, "stdout": right, "output": right}
    beside = {CHECKER: files[CHECKER], INPUT: files[INPUT], EXPECTED: files[EXPECTED]}
    check = Order("python", CHECK, files=(*_bytes(beside), (ACTUAL, actual)), limits=visit.limits(10))
    return _compiled(report), _stage(await visit.run(check))


def _limits(visit: Visit, seconds: float, memory_mb: float | None, body: Execute) -> LimitsSpec:
    if memory_mb is None and body.run_memory_limit and body.run_memory_limit > 0:
        memory_mb = body.run_memory_limit / (1 << 20)
    wall_s = min(2 * seconds + 2, DIALECT.deadline_s - 4)
    return visit.limits(min(seconds, wall_s), None if memory_mb is None else int(memory_mb), wall_s=wall_s)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _bytes(files: dict[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, content.encode()) for name, content in files.items())


def _compiled(report: Report) -> dict[str, Any]:
    """The stage of the compiler; one that was not needed went well."""
    made = report.compile
    if made is None:
        return FINE
    return {"code": 0 if made.ok else 1, "signal": None, "stdout": made.stdout, "stderr": made.stderr,
            "output": made.stdout + made.stderr}  # fmt: skip


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _stage(report: Report) -> dict[str, Any]:
    run = told(report)
    if run is None:
        return {**FINE, "code": None}
    stderr = "\n".join(part for part in (run.stderr, run.note) if part)
    killed_by = "SIGKILL" if run.note else None if run.signal is None else signal_name(run.signal)
    return {"code": None if killed_by else run.exit_code, "signal": killed_by, "stdout": run.stdout, "stderr": stderr,
            "output": run.stdout + stderr}  # fmt: skip
