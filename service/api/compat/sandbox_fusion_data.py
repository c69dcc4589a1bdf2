"""The rest of SandboxFusion: notebooks, and judging by `/submit`.

`/submit` judges tests that come inline (`provided_data`) and suites that are stored here (data set `testsets`, id: the
digest under which `PUT /testsets` stored it). Suites have no prompts and are known only to who knows their digest, so
the lists are short. Standard output is compared word by word, numbers within 1e-5; letters' case counts, other than
there. Python that a client sends for extracting code is refused: it would run in the service.
"""

from __future__ import annotations

import base64
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field

from plaudit.errors import BadRequest, Invalid
from plaudit.extract import code_of
from plaudit.graders import TOLERANT, Grader
from plaudit.grading import Verdict
from plaudit.labels import Tested, required_tests
from plaudit.schemas import (
    CompileResult,
    ExecuteItem,
    ExecuteRequest,
    ProgramResult,
    RefTests,
    StdioTestCase,
    StdioTests,
    TestResult,
)
from service.api.compat import notebook
from service.api.compat.base import Loose, Text, Visit, judged
from service.api.compat.sandbox_fusion import DIALECT, MAX_DEADLINE_S, SLACK_S, WALL_SLACK_S, decoded

__all__ = ["DIALECT"]  # the same router, with more in it

STORED = "testsets"
REL_TOL = 1e-5
STREAMS = {"stdin", "stdout"}


class RunJupyter(Loose):
    cells: list[Text]
    cell_timeout: float = 0
    total_timeout: float = 45
    memory_limit_MB: int = -1
    kernel: str = "python3"
    files: dict[str, str | None] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)


@DIALECT.router.post("/run_jupyter")
async def run_jupyter(request: Request, body: RunJupyter) -> JSONResponse:
    if body.kernel != "python3":
        raise Invalid(f"kernel: {body.kernel!r}; there is python3")
    visit = Visit(request, min(body.total_timeout + SLACK_S, MAX_DEADLINE_S))
    memory_mb = body.memory_limit_MB if body.memory_limit_MB > 0 else None
    order = notebook.order(
        visit,
        body.cells,
        total_s=body.total_timeout,
        cell_s=body.cell_timeout,
        memory_mb=memory_mb,
        files=decoded(body.files),
        fetch=tuple(body.fetch_files),
    )
    report = await visit.alive(visit.run(order))
    done = notebook.notebook(report, len(body.cells))
    files = report.output.files if report.output is not None else {}
    run = done.run
    return JSONResponse(
        {
            "status": "Success" if run.exit_code == 0 and not run.timed_out else "Failed",
            "message": run.note,
            "driver": {
                "status": "TimeLimitExceeded" if run.timed_out else "Finished",
                "execution_time": run.seconds,
                "return_code": None if run.timed_out else run.exit_code,
                "stdout": "",
                "stderr": run.stderr,
            },
            "cells": [cell.model_dump() for cell in done.cells],
            "executor_pod_name": None,
            "files": {name: base64.b64encode(content).decode() for name, content in files.items()},
        }
    )


# --- judging ---------------------------------------------------------------------------------------------------------


class TestConfig(Loose):
    __test__ = False

    language: str | None = None
    compile_timeout: float | None = None
    run_timeout: float | None = None
    custom_extract_logic: str | None = None
    provided_data: list[dict[str, Any]] | dict[str, Any] | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Submit(Loose):
    dataset: str
    id: int | str
    completion: Text
    config: TestConfig = TestConfig()


@DIALECT.router.post("/submit")
async def submit(request: Request, body: Submit) -> JSONResponse:
    if body.config.custom_extract_logic:
        raise Invalid("config.custom_extract_logic: code for the service itself is not run here")
    row = _row(body)
    grader = Grader.of(request)
    tested = Tested(RefTests(kind="ref", sha256=str(body.id))) if row is None else _tests(row, grader)
    labels = row.get("labels") if row is not None else None
    named = labels.get("programming_language") if isinstance(labels, dict) else None
    language = body.config.language or tested.language or named or "python"
    code = code_of(body.completion, language)
    if code is None:
        return JSONResponse(
            {"id": body.id, "accepted": False, "extracted_code": "", "tests": [], "extracted_type": "empty"}
        )
    run_s = body.config.run_timeout or 10.0
    visit = Visit(request, MAX_DEADLINE_S)
    limits = visit.limits(run_s, wall_s=run_s + WALL_SLACK_S)
    tests = tested.graded(language, grader)
    item = ExecuteItem(
        language=language,
        programs=[code.text],
        tests=tests,
        limits=limits,
        stop="never" if body.config.extra.get("run_all_cases") else "first_failure",
    )
    ran = await visit.alive(visit.execute(ExecuteRequest(items=[item])))
    program = judged(ran.results[0].programs[0])
    return JSONResponse(
        {
            "id": body.id,
            "accepted": program.passed == program.total,
            "extracted_code": code.text,
            "full_code": code.text,
            "tests": _cases(program),
            "extracted_type": code.kind,
        }
    )


def _row(body: Submit) -> dict[str, Any] | None:
    """The row that came along; None for a stored suite. Raises BadRequest for anything else, as the original does."""
    given = body.config.provided_data
    if isinstance(given, dict):
        return given
    if given is not None:
        found = next((row for row in given if str(row.get("id")) == str(body.id)), None)
        if found is None:
            raise BadRequest(f"id: no {body.id!r} in provided_data")
        return found
    if body.dataset != STORED:
        raise BadRequest(f"dataset: {body.dataset!r} is not kept here; send provided_data, or store suites by digest")
    return None


def _tests(row: dict[str, Any], grader: Grader) -> Tested:
    cases = row.get("test")
    if isinstance(cases, list) and all(isinstance(case, dict) and "input" in case for case in cases) and cases:
        streams = [{**_streams(case, "input"), **_streams(case, "output")} for case in cases]
        if unknown := sorted({name for one in streams for name in one} - STREAMS):
            raise Invalid(f"test: files are not judged here, and {', '.join(unknown)} are asked for")
        lines = [StdioTestCase(stdin=one.get("stdin", ""), stdout=one.get("stdout", "")) for one in streams]
        compare = grader.compare or "float"
        tolerance = None if compare not in TOLERANT else REL_TOL if grader.rel_tol is None else grader.rel_tol
        return Tested(StdioTests(kind="stdio", cases=lines, compare=compare, rel_tol=tolerance))
    return required_tests(row if cases is None or isinstance(cases, str) else {**row, "tests": cases}, "provided_data")


def _streams(case: dict[str, Any], side: str) -> dict[str, str]:
    given = case.get(side)
    if isinstance(given, dict):
        return {str(name): str(text) for name, text in given.items()}
    return {"stdin" if side == "input" else "stdout": "" if given is None else str(given)}


def _cases(program: ProgramResult) -> list[dict[str, Any]]:
    """One entry a test that ran; a program that does not compile has one."""
    ran = [test for test in program.tests if test.verdict is not Verdict.SKIPPED]
    return [
        {
            "passed": test.verdict is Verdict.PASSED,
            "exec_info": _exec_info(program.compile, test),
            "test_info": {"verdict": test.verdict.value, "detail": test.detail},
        }
        for test in ran
    ]


def _exec_info(compiled: CompileResult | None, test: TestResult) -> dict[str, Any]:
    fine = test.verdict in (Verdict.PASSED, Verdict.WRONG_ANSWER)
    late = test.verdict is Verdict.TIME_LIMIT
    run = {
        "status": "TimeLimitExceeded" if late else "Finished",
        "execution_time": test.wall_ms / 1000,
        "cpu_time": test.cpu_ms / 1000,
        "return_code": None if late else 0 if fine else 1,
        "stdout": test.stdout,
        "stderr": test.stderr,
    }
    built = (
        None
        if compiled is None
        else {
            "status": "Finished",
            "execution_time": compiled.wall_ms / 1000,
            "return_code": 0 if compiled.ok else 1,
            "stdout": compiled.stdout,
            "stderr": compiled.stderr,
        }
    )
    broken = test.verdict is Verdict.COMPILE_ERROR
    return {
        "status": "Success" if fine else "Failed",
        "message": test.detail,
        "compile_result": built,
        "run_result": None if broken else run,
        "executor_pod_name": None,
        "files": {},
    }


# --- what is kept here -----------------------------------------------------------------------------------------------


class Ask(Loose):
    dataset: str
    id: int | str | None = None


@DIALECT.router.get("/list_datasets")
async def list_datasets() -> list[str]:
    return [STORED]


@DIALECT.router.post("/list_ids")
@DIALECT.router.post("/get_prompts")
async def list_ids(body: Ask) -> list[str]:
    """Nothing: suites are known to who knows their digests."""
    _kept(body.dataset)
    return []


@DIALECT.router.post("/get_prompt_by_id")
async def get_prompt_by_id(request: Request, body: Ask) -> JSONResponse:
    _kept(body.dataset)
    services = request.app.state.services
    if body.id is None or await services.queue.get_suite(str(body.id)) is None:
        raise BadRequest(f"id: no suite {body.id!r} is stored")
    return JSONResponse({"id": body.id, "prompt": "", "labels": {"sha256": body.id}})


@DIALECT.router.post("/get_metrics")
async def get_metrics() -> dict[str, Any]:
    return {}


@DIALECT.router.post("/get_metrics_function")
async def get_metrics_function() -> dict[str, None]:
    return {"function": None}


def _kept(dataset: str) -> None:
    if dataset != STORED:
        raise BadRequest(f"dataset: {dataset!r} is not kept here; there is {STORED}")
