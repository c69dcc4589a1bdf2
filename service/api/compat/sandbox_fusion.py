"""SandboxFusion: `/run_code`, notebooks, and judging by `/submit`.

- `/run_code` is what verl, ROLL and the `sandbox-fusion` package post: one program and one stdin per call. The client
  compares outputs itself, so nothing is judged.
- verl retries after 504 only, three times in all, and counts every other error as a failed test. So the retry status is
  504, and it comes only when the client's own timeout is near: an outage of a minute passes unnoticed.
- A program is never an error. One that is too large has failed, as one that does not compile has; one that no worker
  survives is a `SandboxError`.
- `/submit` judges tests that come inline (`provided_data`) and suites that are stored here (data set `testsets`, id:
  the digest under which `PUT /testsets` stored it). Suites have no prompts and are known only to those who know their
  digests, so the lists are empty.
- Python that a client sends for extracting code is rejected: it would run in the service.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field

from plaudit.errors import BadRequest, Invalid, Poisoned, TooLarge
from plaudit.extract import code_of
from plaudit.graders import Grader
from plaudit.labels import Tested
from plaudit.schemas import ExecuteItem, RefTests
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, Text, judged
from service.api.compat.notebook import notebook_request, notebook_run
from service.api.compat.sandbox_fusion_answers import (
    failed_run_answer,
    notebook_answer,
    run_code_answer,
    submit_tests,
    tests_of_row,
)
from service.api.handlers.run import RunRequest
from service.api.state import state_of

DIALECT = Dialect(
    "sandbox_fusion",
    "verl `reward.sandbox_fusion.url`, ROLL `code_sandbox`, `sandbox-fusion` package",
    deadline_s=27,
    retry_status=504,
)
SLACK_S = 7.0  # beyond a request's own timeouts; verl waits ten seconds beyond them
ROLL_DEADLINE_S = 27.0  # ROLL waits 30 s whatever the timeouts are
WALL_SLACK_S = 3.0  # a run is stopped by its CPU time; sleeping and waiting may take so much longer
MAX_DEADLINE_S = 600.0
STORED_SUITES = "testsets"  # the name of the only data set

Files = dict[str, str | None]  # base64 by name


class RunCodeRequest(CompatRequest):
    code: Text
    language: str
    compile_timeout: float = 10
    run_timeout: float = 10
    memory_limit_MB: int = -1
    stdin: Text | None = None
    files: Files = Field(default_factory=dict)
    fetch_files: FailFastList[str] = Field(default_factory=list)
    expected_stdout: Any = None  # ROLL sends it and compares by itself

    def deadline_s(self) -> float:
        """Less than the client's own timeout. ROLL's is fixed; ROLL is recognised by a field that only it sends."""
        if "expected_stdout" in self.model_fields_set:
            return ROLL_DEADLINE_S
        return min(self.compile_timeout + self.run_timeout + SLACK_S, MAX_DEADLINE_S)

    def run_request(self, call: CompatCall) -> RunRequest:
        """The run, stopped early enough to be answered in time."""
        wall_s = min(self.run_timeout + WALL_SLACK_S, max(1.0, self.deadline_s() - 4))
        limits = call.limits(min(self.run_timeout, wall_s), _memory_mb(self.memory_limit_MB), wall_s=wall_s)
        files, fetch = decoded_files(self.files), tuple(self.fetch_files)
        return RunRequest(self.language, self.code, self.stdin or "", files, fetch, limits)


@DIALECT.router.post("/run_code")
async def run_code(request: Request, body: RunCodeRequest) -> JSONResponse:
    call = CompatCall(request, body.deadline_s())
    try:
        report = await call.while_connected(call.with_retries(lambda: call.run(body.run_request(call))))
    except TooLarge as error:
        return JSONResponse(failed_run_answer(error.detail))
    except Poisoned as error:
        return JSONResponse(failed_run_answer(error.detail) | {"status": "SandboxError"})
    return JSONResponse(run_code_answer(report))


@DIALECT.router.get("/v1/ping")
async def ping() -> PlainTextResponse:
    return PlainTextResponse('"pong"', media_type="application/json")


class RunJupyterRequest(CompatRequest):
    cells: FailFastList[Text]
    cell_timeout: float = 0
    total_timeout: float = 45
    memory_limit_MB: int = -1
    kernel: str = "python3"
    files: Files = Field(default_factory=dict)
    fetch_files: FailFastList[str] = Field(default_factory=list)


@DIALECT.router.post("/run_jupyter")
async def run_jupyter(request: Request, body: RunJupyterRequest) -> JSONResponse:
    if body.kernel != "python3":
        raise Invalid(f"kernel: {body.kernel!r} is not available; there is python3")
    call = CompatCall(request, min(body.total_timeout + SLACK_S, MAX_DEADLINE_S))
    run_request = notebook_request(
        call,
        body.cells,
        total_s=body.total_timeout,
        cell_s=body.cell_timeout,
        memory_mb=_memory_mb(body.memory_limit_MB),
        files=decoded_files(body.files),
        fetch=tuple(body.fetch_files),
    )
    report = await call.while_connected(call.run(run_request))
    return JSONResponse(notebook_answer(report, notebook_run(report, len(body.cells))))


def decoded_files(files: Files) -> tuple[tuple[str, bytes], ...]:
    """Names and contents. Raises Invalid for what is not base64."""
    try:
        return tuple((name, base64.b64decode(text or "", validate=True)) for name, text in files.items())
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"files: not base64: {error}") from None


def _memory_mb(memory_limit_mb: int) -> int | None:
    return memory_limit_mb if memory_limit_mb > 0 else None


# --- judging ---------------------------------------------------------------------------------------------------------


class SubmitConfig(CompatRequest):
    language: str | None = None
    compile_timeout: float | None = None
    run_timeout: float | None = None
    custom_extract_logic: str | None = None
    provided_data: FailFastList[dict[str, Any]] | dict[str, Any] | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class SubmitRequest(CompatRequest):
    dataset: str
    id: int | str
    completion: Text
    config: SubmitConfig = SubmitConfig()

    def row(self) -> dict[str, Any] | None:
        """The row that the request brings; None for a stored suite. Raises BadRequest, as the original does."""
        provided = self.config.provided_data
        if isinstance(provided, dict):
            return provided
        if provided is not None:
            row = next((row for row in provided if str(row.get("id")) == str(self.id)), None)
            if row is None:
                raise BadRequest(f"id: there is no {self.id!r} in provided_data")
            return row
        if self.dataset != STORED_SUITES:
            raise BadRequest(
                f"dataset: {self.dataset!r} is not kept here; send provided_data, or store suites by digest"
            )
        return None


@DIALECT.router.post("/submit")
async def submit(request: Request, body: SubmitRequest) -> JSONResponse:
    if body.config.custom_extract_logic:
        raise Invalid("config.custom_extract_logic: the service does not run a client's code in its own process")
    row = body.row()
    grader = Grader.of(request)
    tested = Tested(RefTests(kind="ref", sha256=str(body.id))) if row is None else tests_of_row(row, grader)
    language = body.config.language or tested.language or _language_of_row(row) or "python"
    code = code_of(body.completion, language)
    if code is None:
        return JSONResponse(
            {"id": body.id, "accepted": False, "extracted_code": "", "tests": [], "extracted_type": "empty"}
        )
    run_s = body.config.run_timeout or 10.0
    call = CompatCall(request, MAX_DEADLINE_S)
    item = ExecuteItem(
        language=language,
        programs=[code.text],
        tests=tested.graded(language, grader),
        limits=call.limits(run_s, wall_s=run_s + WALL_SLACK_S),
        stop="never" if body.config.extra.get("run_all_cases") else "first_failure",
    )
    program = judged(await call.while_connected(call.judge(item)))
    return JSONResponse(
        {
            "id": body.id,
            "accepted": program.passed == program.total,
            "extracted_code": code.text,
            "full_code": code.text,
            "tests": submit_tests(program),
            "extracted_type": code.kind,
        }
    )


def _language_of_row(row: dict[str, Any] | None) -> str | None:
    labels = row.get("labels") if row is not None else None
    return labels.get("programming_language") if isinstance(labels, dict) else None


# --- stored suites ---------------------------------------------------------------------------------------------------


class DatasetRequest(CompatRequest):
    dataset: str
    id: int | str | None = None

    def check(self) -> None:
        """Raises BadRequest for any data set but the stored suites."""
        if self.dataset != STORED_SUITES:
            raise BadRequest(f"dataset: {self.dataset!r} is not kept here; there is {STORED_SUITES}")


@DIALECT.router.get("/list_datasets")
async def list_datasets() -> list[str]:
    return [STORED_SUITES]


@DIALECT.router.post("/list_ids")
@DIALECT.router.post("/get_prompts")
async def list_ids(body: DatasetRequest) -> list[str]:
    """An empty list: a suite is found by its digest only."""
    body.check()
    return []


@DIALECT.router.post("/get_prompt_by_id")
async def get_prompt_by_id(request: Request, body: DatasetRequest) -> JSONResponse:
    body.check()
    if body.id is None or await state_of(request).shards.get_suite(str(body.id)) is None:
        raise BadRequest(f"id: no suite {body.id!r} is stored")
    return JSONResponse({"id": body.id, "prompt": "", "labels": {"sha256": body.id}})


@DIALECT.router.post("/get_metrics")
async def get_metrics() -> dict[str, Any]:
    return {}


@DIALECT.router.post("/get_metrics_function")
async def get_metrics_function() -> dict[str, None]:
    return {"function": None}
