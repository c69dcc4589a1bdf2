"""open-r1's sandbox router: `POST /execute_batch {scripts, languages, timeout, request_timeout}`.

The E2B client has no timeout and reads the list whatever the status is, so the answer is always 200 with one item a
script: both clients' shapes at once, and null where we could not (`execution: null` is None to E2B's, `text: null` 0.0
to Morph's). Scripts are open-r1's own template, run as a notebook cell: indented, with their value in the last line,
and free to start `python3` themselves.
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
from service.api.compat import notebook
from service.api.compat.base import Dialect, Loose, Text, Visit

log = logging.getLogger("plaudit.dialects")

DIALECT = Dialect("open_r1", "open-r1 `e2b_router_url`, `morph_router_url`", deadline_s=90, sheds=None)
MEMORY_MB = 2048  # the script and the programs that it starts


class Batch(Loose):
    scripts: list[Text]
    languages: list[str] = Field(default_factory=list)
    timeout: float = 30
    request_timeout: float = 28


@DIALECT.router.post("/execute_batch")
async def execute_batch(request: Request, body: Batch) -> JSONResponse:
    visit = Visit(request, DIALECT.deadline_s)
    languages = body.languages or ["python"] * len(body.scripts)
    if len(languages) != len(body.scripts):
        languages = [languages[0]] * len(body.scripts)
    pairs = zip(body.scripts, languages, strict=True)
    items = await visit.alive(asyncio.gather(*(_one(visit, *pair, body.timeout) for pair in pairs)))
    return JSONResponse(items)


async def _one(visit: Visit, script: str, language: str, timeout: float) -> dict[str, Any]:
    try:
        if resolve(language) != "python":
            raise Invalid(f"scripts run as notebook cells, and those are Python, not {language}")
        order = notebook.order(visit, [script], total_s=timeout, memory_mb=MEMORY_MB)
        done = notebook.notebook(await visit.patiently(lambda: visit.run(order)), 1)
    except (PlauditError, UnsupportedLanguage) as error:
        metrics.infra_errors.labels("open_r1", getattr(error, "code", "invalid")).inc()
        log.warning("an item without a result: %s", error, extra={"request_id": visit.request.state.request_id})
        return {"execution": None, "text": None, "exception_str": str(error)}
    if not done.cells:
        why = done.run.note or f"the script ended with exit code {done.run.exit_code} before it had a value"
        cell = notebook.Cell(
            stdout="",
            stderr=done.run.stderr,
            display=[],
            error=[{"ename": "ScriptEnded", "evalue": why, "traceback": [why]}],
        )
    else:
        cell = done.cells[0]
    text = cell.display[0].get("text/plain") if cell.display else None
    failed = cell.error[0] if cell.error else None
    raised = failed and {"name": failed["ename"], "value": failed["evalue"], "traceback": "".join(failed["traceback"])}
    results = [] if text is None else [{"text": text, "is_main_result": True}]
    return {
        "execution": {
            "results": results,
            "error": raised,
            "execution_count": 1,
            "logs": {"stdout": _lines(cell.stdout), "stderr": _lines(cell.stderr)},
        },
        "text": text,
        "exception_str": None if failed is None else f"{failed['ename']}: {failed['evalue']}",
    }


def _lines(text: str) -> list[str]:
    return [text] if text else []
