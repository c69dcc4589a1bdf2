"""Piston v2: `POST /api/v2/execute`, `GET /api/v2/runtimes`, as open-r1's Codeforces scorer posts to it.

A plain request runs the first file; the others lie beside it, for the compiler too. A request that brings `input.txt`
and `correct_output.txt` is a Codeforces test of open-r1's own package: the program reads the input, and `run.stdout` is
"1" or "0", by `checker.py` where it is given and word by word elsewhere. IOI problems need their graders, which are not
here. Times are milliseconds, memory bytes.
"""

from __future__ import annotations

import base64
import binascii
import signal
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field

from plaudit.errors import BadRequest, Poisoned
from plaudit.languages import UnsupportedLanguage, base, resolve
from plaudit.schemas import LimitsSpec
from sandbox.judge.compare import same_output
from sandbox.types import Report
from service.api.compat.base import Dialect, Loose, Text, Visit
from service.api.compat.runs import told
from service.api.handlers.run import Order

DIALECT = Dialect("piston", "open-r1 `PISTON_ENDPOINTS` (Codeforces), Piston clients", deadline_s=27, sheds=503)
PREFIXES = ("cf_", "codeforces_")
FINE: dict[str, Any] = {"code": 0, "signal": None, "stdout": "", "stderr": "", "output": ""}
INPUT, EXPECTED, ACTUAL, CHECKER, CONFIG = (
    "input.txt",
    "correct_output.txt",
    "output.txt",
    "checker.py",
    "grader_config",
)
CHECK = f"""\
import runpy, sys
sys.argv = ["{CHECKER}", "{INPUT}", "{EXPECTED}", "{ACTUAL}"]
runpy.run_path("{CHECKER}", run_name="__main__")
"""


class File(Loose):
    content: Text
    name: str = ""
    encoding: Literal["utf8", "base64", "hex"] = "utf8"

    def data(self) -> bytes:
        """The file itself. Raises BadRequest for what is not in its encoding."""
        try:
            if self.encoding == "base64":
                return base64.b64decode("".join(self.content.split()), validate=True)
            return bytes.fromhex(self.content) if self.encoding == "hex" else self.content.encode()
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"files: the content of {self.name!r} is not {self.encoding}: {error}") from None


class Execute(Loose):
    language: str
    version: str = "*"
    files: list[File]
    stdin: Text = ""
    args: list[Text] = Field(default_factory=list)
    run_timeout: float | None = None
    run_memory_limit: float | None = None

    def program(self) -> str:
        """The first file's text. Raises BadRequest for one that is not text."""
        try:
            return self.files[0].data().decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"files: the first is the program, and not UTF-8: {error}") from None

    def named(self) -> dict[str, bytes]:
        """The files beside the program, by name."""
        return {file.name: file.data() for file in self.files[1:] if file.name}


@DIALECT.router.get("/api/v2/runtimes")
async def runtimes(request: Request) -> JSONResponse:
    """One entry a language, and one more for each of its variants."""
    known = request.app.state.services.fleet.languages
    names = [(one.name, one.aliases, one.version) for one in known]
    names += [(name, spellings, one.version) for one in known for name, spellings in one.variants.items()]
    return JSONResponse(
        [{"language": name, "version": version, "aliases": spellings} for name, spellings, version in names]
    )


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
    version = {one.name: one.version for one in visit.services.fleet.languages}.get(base(language), body.version)
    return JSONResponse({"language": body.language, "version": version, "compile": compiled, "run": run})


Stages = tuple[dict[str, Any], dict[str, Any]]


async def _plain(visit: Visit, body: Execute, language: str, files: dict[str, bytes]) -> Stages:
    limits = _limits(visit, (body.run_timeout or 3000) / 1000, None, body)
    order = Order(language, body.program(), body.stdin, tuple(files.items()), limits=limits, args=tuple(body.args))
    report = await visit.run(order)
    return _compiled(report), _stage(report)


async def _graded(visit: Visit, body: Execute, language: str, files: dict[str, bytes]) -> Stages:
    """The program on its input, then the checker on what it printed."""
    config = dict(line.split("=", 1) for line in _text(files.get(CONFIG, b"")).splitlines() if "=" in line)
    by_file = config.get("INPUT_MODE", "stdio").strip().lower() == "file"
    seconds = _number(config.get("TIME_LIMIT")) or (body.run_timeout or 3000) / 1000
    limits = _limits(visit, seconds, _number(config.get("MEMORY_LIMIT")), body)
    source, arguments = body.program(), tuple(body.args)
    beside = {name: data for name, data in files.items() if name not in (INPUT, EXPECTED, CHECKER, CONFIG)}
    order = Order(language, source, _text(files[INPUT]), tuple(beside.items()), limits=limits, args=arguments)
    if by_file:
        beside[INPUT] = files[INPUT]
        order = Order(language, source, files=tuple(beside.items()), fetch=(ACTUAL,), limits=limits, args=arguments)
    report = await visit.run(order)
    run = told(report)
    if run is None or report.output is None:
        return _compiled(report), _stage(report)
    if run.exit_code != 0 or run.timed_out:
        return _compiled(report), {**FINE, "stdout": "0", "output": "0", "stderr": run.note or run.stderr[-2000:]}
    actual = report.output.files.get(ACTUAL, b"") if by_file else report.output.stdout
    if CHECKER not in files:
        right = "1" if same_output(actual, files[EXPECTED], "tokens") else "0"
        return _compiled(report), {**FINE, "stdout": right, "output": right}
    shown = tuple((name, files[name]) for name in (CHECKER, INPUT, EXPECTED))
    check = Order("python", CHECK, files=(*shown, (ACTUAL, actual)), limits=visit.limits(10))
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


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _compiled(report: Report) -> dict[str, Any]:
    """The stage of the compiler; one that was not needed went well."""
    made = report.compile
    if made is None:
        return FINE
    return {
        "code": 0 if made.ok else 1,
        "signal": None,
        "stdout": made.stdout,
        "stderr": made.stderr,
        "output": made.stdout + made.stderr,
    }


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
    return {
        "code": None if killed_by else run.exit_code,
        "signal": killed_by,
        "stdout": run.stdout,
        "stderr": stderr,
        "output": run.stdout + stderr,
    }
