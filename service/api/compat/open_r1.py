"""open-r1's sandbox router: `POST /execute_batch {scripts, languages, timeout, request_timeout}`.

- The E2B client has no timeout and reads the list whatever the status is. So the answer is always 200 and has one item
  per script, in the shapes of both clients: `execution` for E2B's and `text` for Morph's.
- Where there is no result, both are null: E2B's client takes that for None, Morph's for 0.0.
- Scripts are made from open-r1's own template and run as a notebook cell: they may be indented, their last line is
  their value, and they may start `python3` themselves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field

from plaudit.errors import Invalid, PlauditError
from plaudit.languages import UnsupportedLanguage, resolve
from service import metrics
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, Text
from service.api.compat.notebook import NotebookCell, NotebookRun, notebook_request, notebook_run

log = logging.getLogger("plaudit.compat")

DIALECT = Dialect("open_r1", "open-r1 `e2b_router_url`, `morph_router_url`", deadline_s=90, retry_status=None)
MEMORY_MB = 2048  # for the script and the programs that it starts


class ExecuteBatchRequest(CompatRequest):
    scripts: FailFastList[Text]
    languages: FailFastList[str] = Field(default_factory=list)
    timeout: float = 30
    request_timeout: float = 28


@DIALECT.router.post("/execute_batch")
async def execute_batch(request: Request, body: ExecuteBatchRequest) -> JSONResponse:
    call = CompatCall(request, DIALECT.deadline_s)
    languages = body.languages or ["python"] * len(body.scripts)
    if len(languages) != len(body.scripts):
        languages = [languages[0]] * len(body.scripts)
    scripts = zip(body.scripts, languages, strict=True)
    work = [_execute_script(call, script, language, body.timeout) for script, language in scripts]
    return JSONResponse(await call.while_connected(asyncio.gather(*work)))


async def _execute_script(call: CompatCall, script: str, language: str, timeout_s: float) -> dict[str, Any]:
    """One item of the answer."""
    try:
        if resolve(language) != "python":
            raise Invalid(f"languages: scripts run as notebook cells, and those are Python, not {language}")
        run_request = notebook_request(call, [script], total_s=timeout_s, memory_mb=MEMORY_MB)
        notebook = notebook_run(await call.with_retries(lambda: call.run(run_request)), 1)
    except (PlauditError, UnsupportedLanguage) as error:
        metrics.infra_errors.labels("open_r1", getattr(error, "code", "invalid")).inc()
        log.warning("a script has no result: %s", error, extra={"request_id": call.request.state.request_id})
        return {"execution": None, "text": None, "exception_str": str(error)}
    return _execution(notebook.cells[0] if notebook.cells else _unfinished_cell(notebook))


def _unfinished_cell(notebook: NotebookRun) -> NotebookCell:
    """The cell of a script that ended its process."""
    process = notebook.process
    reason = process.note or f"the script ended with exit code {process.exit_code} before it had a value"
    error = {"ename": "ScriptEnded", "evalue": reason, "traceback": [reason]}
    return NotebookCell(stdout="", stderr=process.stderr, display=[], error=[error])


def _execution(cell: NotebookCell) -> dict[str, Any]:
    """A cell in the shapes of both clients."""
    text = cell.display[0].get("text/plain") if cell.display else None
    error = cell.error[0] if cell.error else None
    return {
        "execution": {
            "results": [] if text is None else [{"text": text, "is_main_result": True}],
            "error": error
            and {"name": error["ename"], "value": error["evalue"], "traceback": "".join(error["traceback"])},
            "execution_count": 1,
            "logs": {"stdout": _log_lines(cell.stdout), "stderr": _log_lines(cell.stderr)},
        },
        "text": text,
        "exception_str": None if error is None else f"{error['ename']}: {error['evalue']}",
    }


def _log_lines(text: str) -> list[str]:
    return [text] if text else []
