"""SandboxFusion's answers made of reports and verdicts, and plaudit's tests made of its data set rows.

Standard output is compared word by word, with numbers within 1e-5. Unlike in SandboxFusion, letter case counts.
"""

from __future__ import annotations

import base64
from typing import Any

from plaudit.errors import Invalid
from plaudit.graders import TOLERANT, Grader
from plaudit.grading import Verdict
from plaudit.labels import Tested, required_tests
from plaudit.schemas import CompileResult, ProgramResult, StdioTestCase, StdioTests, TestResult
from sandbox.types import Report
from service.api.compat.notebook import NotebookRun
from service.api.compat.process_outcome import process_outcome

REL_TOL = 1e-5
STREAMS = {"stdin", "stdout"}


def run_code_answer(report: Report) -> dict[str, Any]:
    """A report as `RunCodeResponse`."""
    outcome = process_outcome(report)
    run_result = None
    if outcome is not None:
        run_result = {
            "status": "TimeLimitExceeded" if outcome.timed_out else "Finished",
            "execution_time": outcome.wall_s,
            "cpu_time": outcome.cpu_s,
            "return_code": None if outcome.timed_out else outcome.exit_code,
            "stdout": outcome.stdout,
            "stderr": "\n".join(text for text in (outcome.stderr, outcome.note) if text),
        }
    ok = outcome is not None and outcome.exit_code == 0 and not outcome.timed_out
    compiled = report.compile
    return {
        "status": "Success" if ok else "Failed",
        "message": outcome.note if outcome is not None else "",
        "compile_result": None
        if compiled is None
        else _compile_result(compiled.ok, compiled.wall_ms, compiled.stdout, compiled.stderr),
        "run_result": run_result,
        "executor_pod_name": None,
        "files": _encoded_files(report),
    }


def failed_run_answer(reason: str) -> dict[str, Any]:
    """The answer for an invalid program that was not run: it has failed."""
    run_result = {
        "status": "Error",
        "execution_time": 0.0,
        "cpu_time": 0.0,
        "return_code": 1,
        "stdout": "",
        "stderr": f"plaudit: {reason}",
    }
    return {
        "status": "Failed",
        "message": reason,
        "compile_result": None,
        "run_result": run_result,
        "executor_pod_name": None,
        "files": {},
    }


def notebook_answer(report: Report, notebook: NotebookRun) -> dict[str, Any]:
    """A notebook as `RunJupyterResponse`."""
    process = notebook.process
    return {
        "status": "Success" if process.exit_code == 0 and not process.timed_out else "Failed",
        "message": process.note,
        "driver": {
            "status": "TimeLimitExceeded" if process.timed_out else "Finished",
            "execution_time": process.wall_s,
            "return_code": None if process.timed_out else process.exit_code,
            "stdout": "",
            "stderr": process.stderr,
        },
        "cells": [cell.model_dump() for cell in notebook.cells],
        "executor_pod_name": None,
        "files": _encoded_files(report),
    }


def _encoded_files(report: Report) -> dict[str, str]:
    files = report.output.files if report.output is not None else {}
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def _compile_result(ok: bool, wall_ms: float, stdout: str, stderr: str) -> dict[str, Any]:
    return {
        "status": "Finished",
        "execution_time": wall_ms / 1000,
        "return_code": 0 if ok else 1,
        "stdout": stdout,
        "stderr": stderr,
    }


# --- /submit ---------------------------------------------------------------------------------------------------------


def tests_of_row(row: dict[str, Any], grader: Grader) -> Tested:
    """The tests of a data set's row. Raises Invalid where there are none."""
    cases = row.get("test")
    if isinstance(cases, list) and all(isinstance(case, dict) and "input" in case for case in cases) and cases:
        return Tested(_stdio_tests(cases, grader))
    return required_tests(row if cases is None or isinstance(cases, str) else {**row, "tests": cases}, "provided_data")


def _stdio_tests(cases: list[dict[str, Any]], grader: Grader) -> StdioTests:
    streams = [{**_streams(case, "input"), **_streams(case, "output")} for case in cases]
    if unknown := sorted({name for case_streams in streams for name in case_streams} - STREAMS):
        raise Invalid(f"test: only stdin and stdout are judged here, and not the files {', '.join(unknown)}")
    stdio_cases = [
        StdioTestCase(stdin=case_streams.get("stdin", ""), stdout=case_streams.get("stdout", ""))
        for case_streams in streams
    ]
    compare = grader.compare or "float"
    rel_tol = None
    if compare in TOLERANT:
        rel_tol = REL_TOL if grader.rel_tol is None else grader.rel_tol
    return StdioTests(kind="stdio", cases=stdio_cases, compare=compare, rel_tol=rel_tol)


def _streams(case: dict[str, Any], side: str) -> dict[str, str]:
    """A case's `input` or `output` by stream: an object of them, or the text of stdin or stdout."""
    given = case.get(side)
    if isinstance(given, dict):
        return {str(name): str(text) for name, text in given.items()}
    return {"stdin" if side == "input" else "stdout": "" if given is None else str(given)}


def submit_tests(program: ProgramResult) -> list[dict[str, Any]]:
    """One entry per test that ran; a program that does not compile has one."""
    return [
        {
            "passed": test.verdict is Verdict.PASSED,
            "exec_info": _exec_info(program.compile, test),
            "test_info": {"verdict": test.verdict.value, "detail": test.detail},
        }
        for test in program.tests
        if test.verdict is not Verdict.SKIPPED
    ]


def _exec_info(compiled: CompileResult | None, test: TestResult) -> dict[str, Any]:
    ran_fully = test.verdict in (Verdict.PASSED, Verdict.WRONG_ANSWER)
    timed_out = test.verdict is Verdict.TIME_LIMIT
    exit_code = 0 if ran_fully else 1
    run_result = {
        "status": "TimeLimitExceeded" if timed_out else "Finished",
        "execution_time": test.wall_ms / 1000,
        "cpu_time": test.cpu_ms / 1000,
        "return_code": None if timed_out else exit_code,
        "stdout": test.stdout,
        "stderr": test.stderr,
    }
    return {
        "status": "Success" if ran_fully else "Failed",
        "message": test.detail,
        "compile_result": None
        if compiled is None
        else _compile_result(compiled.ok, compiled.wall_ms, compiled.stdout, compiled.stderr),
        "run_result": None if test.verdict is Verdict.COMPILE_ERROR else run_result,
        "executor_pod_name": None,
        "files": {},
    }
