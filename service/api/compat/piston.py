"""Piston v2: `POST /api/v2/execute`, `GET /api/v2/runtimes`, as open-r1's Codeforces scorer posts to it.

- A plain request runs the first file. The others lie beside it, for the compiler, too.
- A request with `input.txt` and `correct_output.txt` is a Codeforces test of open-r1's own package: the program reads
  the input, and `run.stdout` is "1" or "0", by `checker.py` where it is given and word by word elsewhere.
- IOI problems need their graders, which plaudit does not have.
- Times are milliseconds, memory bytes.
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
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, Text
from service.api.compat.process_outcome import as_text, process_outcome
from service.api.handlers.run import RunRequest
from service.api.state import state_of

DIALECT = Dialect("piston", "open-r1 `PISTON_ENDPOINTS` (Codeforces), Piston clients", deadline_s=27, retry_status=503)
LANGUAGE_PREFIXES = ("cf_", "codeforces_")
MAX_STDERR_CHARS = 2000  # of a program that failed its Codeforces test
PASSED_STAGE: dict[str, Any] = {"code": 0, "signal": None, "stdout": "", "stderr": "", "output": ""}
INPUT, EXPECTED, ACTUAL, CHECKER, CONFIG = (
    "input.txt",
    "correct_output.txt",
    "output.txt",
    "checker.py",
    "grader_config",
)
CHECKER_PROGRAM = f"""\
import runpy, sys
sys.argv = ["{CHECKER}", "{INPUT}", "{EXPECTED}", "{ACTUAL}"]
runpy.run_path("{CHECKER}", run_name="__main__")
"""


class PistonFile(CompatRequest):
    content: Text
    name: str = ""
    encoding: Literal["utf8", "base64", "hex"] = "utf8"

    def data(self) -> bytes:
        """The decoded content. Raises BadRequest for what is not in its encoding."""
        try:
            if self.encoding == "base64":
                return base64.b64decode("".join(self.content.split()), validate=True)
            return bytes.fromhex(self.content) if self.encoding == "hex" else self.content.encode()
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"files: the content of {self.name!r} is not {self.encoding}: {error}") from None


class PistonRequest(CompatRequest):
    language: str
    version: str = "*"
    files: FailFastList[PistonFile]
    stdin: Text = ""
    args: FailFastList[Text] = Field(default_factory=list)
    run_timeout: float | None = None
    run_memory_limit: float | None = None

    def program(self) -> str:
        """The first file's text. Raises BadRequest for one that is not text."""
        try:
            return self.files[0].data().decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"files: the first is the program, and it is not UTF-8: {error}") from None

    def other_files(self) -> dict[str, bytes]:
        """The files beside the program, by name."""
        return {file.name: file.data() for file in self.files[1:] if file.name}


@DIALECT.router.get("/api/v2/runtimes")
async def runtimes(request: Request) -> JSONResponse:
    """One entry per language, and one per variant of it."""
    languages = state_of(request).fleet.languages
    names = [(info.name, info.aliases, info.version) for info in languages]
    names += [(name, aliases, info.version) for info in languages for name, aliases in info.variants.items()]
    return JSONResponse(
        [{"language": name, "version": version, "aliases": aliases} for name, aliases, version in names]
    )


@DIALECT.router.post("/api/v2/execute")
async def execute(request: Request, body: PistonRequest) -> JSONResponse:
    if not body.files:
        raise BadRequest("files: there is no file to run")
    language = body.language
    for prefix in LANGUAGE_PREFIXES:
        language = language.removeprefix(prefix)
    try:
        language = resolve(language)
    except UnsupportedLanguage as error:
        raise BadRequest(f"{body.language}-{body.version} runtime is unknown: {error}") from None
    call = CompatCall(request, DIALECT.deadline_s)
    files = body.other_files()
    is_test = INPUT in files and EXPECTED in files
    work = _run_test(call, body, language, files) if is_test else _run_plain(call, body, language, files)
    try:
        compile_stage, run_stage = await call.while_connected(work)
    except Poisoned as error:
        compile_stage, run_stage = (
            PASSED_STAGE,
            {**PASSED_STAGE, "code": None, "signal": "SIGKILL", "stderr": f"plaudit: {error.detail}"},
        )
    versions = {info.name: info.version for info in call.app_state.fleet.languages}
    version = versions.get(base(language), body.version)
    return JSONResponse({"language": body.language, "version": version, "compile": compile_stage, "run": run_stage})


Stages = tuple[dict[str, Any], dict[str, Any]]  # of the compiler, of the run


async def _run_plain(call: CompatCall, body: PistonRequest, language: str, files: dict[str, bytes]) -> Stages:
    limits = _limits(call, (body.run_timeout or 3000) / 1000, None, body)
    run_request = RunRequest(
        language, body.program(), body.stdin, tuple(files.items()), limits=limits, args=tuple(body.args)
    )
    report = await call.run(run_request)
    return _compile_stage(report), _run_stage(report)


async def _run_test(call: CompatCall, body: PistonRequest, language: str, files: dict[str, bytes]) -> Stages:
    """The program on its input, then the checker on what it printed."""
    config = dict(line.split("=", 1) for line in as_text(files.get(CONFIG, b"")).splitlines() if "=" in line)
    reads_file = config.get("INPUT_MODE", "stdio").strip().lower() == "file"
    time_limit_s = _number(config.get("TIME_LIMIT")) or (body.run_timeout or 3000) / 1000
    limits = _limits(call, time_limit_s, _number(config.get("MEMORY_LIMIT")), body)
    source, arguments = body.program(), tuple(body.args)
    beside = {name: data for name, data in files.items() if name not in (INPUT, EXPECTED, CHECKER, CONFIG)}
    stdin, fetch = as_text(files[INPUT]), tuple[str, ...]()
    if reads_file:
        beside[INPUT] = files[INPUT]
        stdin, fetch = "", (ACTUAL,)
    run_request = RunRequest(language, source, stdin, tuple(beside.items()), fetch, limits, arguments)
    report = await call.run(run_request)
    outcome = process_outcome(report)
    if outcome is None or report.output is None:
        return _compile_stage(report), _run_stage(report)
    if outcome.exit_code != 0 or outcome.timed_out:
        stderr = outcome.note or outcome.stderr[-MAX_STDERR_CHARS:]
        return _compile_stage(report), {**PASSED_STAGE, "stdout": "0", "output": "0", "stderr": stderr}
    actual = report.output.files.get(ACTUAL, b"") if reads_file else report.output.stdout
    if CHECKER not in files:
        right = "1" if same_output(actual, files[EXPECTED], "tokens") else "0"
        return _compile_stage(report), {**PASSED_STAGE, "stdout": right, "output": right}
    checker_files = tuple((name, files[name]) for name in (CHECKER, INPUT, EXPECTED))
    check = RunRequest("python", CHECKER_PROGRAM, files=(*checker_files, (ACTUAL, actual)), limits=call.limits(10))
    return _compile_stage(report), _run_stage(await call.run(check))


def _limits(call: CompatCall, time_limit_s: float, memory_mb: float | None, body: PistonRequest) -> LimitsSpec:
    if memory_mb is None and body.run_memory_limit and body.run_memory_limit > 0:
        memory_mb = body.run_memory_limit / (1 << 20)
    wall_s = min(2 * time_limit_s + 2, DIALECT.deadline_s - 4)
    return call.limits(min(time_limit_s, wall_s), None if memory_mb is None else int(memory_mb), wall_s=wall_s)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _compile_stage(report: Report) -> dict[str, Any]:
    """The stage of the compiler; one that was not needed has passed."""
    compiled = report.compile
    if compiled is None:
        return PASSED_STAGE
    return {
        "code": 0 if compiled.ok else 1,
        "signal": None,
        "stdout": compiled.stdout,
        "stderr": compiled.stderr,
        "output": compiled.stdout + compiled.stderr,
    }


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _run_stage(report: Report) -> dict[str, Any]:
    outcome = process_outcome(report)
    if outcome is None:
        return {**PASSED_STAGE, "code": None}
    stderr = "\n".join(text for text in (outcome.stderr, outcome.note) if text)
    killed_by = None if outcome.signal is None else signal_name(outcome.signal)
    if outcome.note:
        killed_by = "SIGKILL"
    return {
        "code": None if killed_by else outcome.exit_code,
        "signal": killed_by,
        "stdout": outcome.stdout,
        "stderr": stderr,
        "output": outcome.stdout + stderr,
    }
