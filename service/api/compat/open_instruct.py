"""open-instruct's code API: `/test_program` (asserts) and `/test_program_stdio` (inputs and outputs).

- This client counts a failed request as a score of 0, after a few tries. So the handler waits inside for as long as the
  client would.
- The tests may be encoded as LiveCodeBench's are: base64 of a zlib-compressed pickle of JSON text. That pickle is read
  by an unpickler that resolves no names, so it can yield plain values only.
"""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from plaudit.errors import Invalid
from plaudit.graders import Grader
from plaudit.grading import Verdict
from plaudit.labels import required_tests
from plaudit.schemas import ExecuteItem, ProgramResult
from service.api.compat.base import CompatCall, CompatRequest, Dialect, Text, inflated, judged

DIALECT = Dialect("open_instruct", "open-instruct `code_api_url`", deadline_s=28, retry_status=503)


class ProgramTestRequest(CompatRequest):
    program: Text
    tests: Any
    max_execution_time: float = 1.0


@DIALECT.router.post("/test_program")
@DIALECT.router.post("/test_program_stdio")
async def test_program(request: Request, body: ProgramTestRequest) -> JSONResponse:
    tested = required_tests(decoded(body.tests), "tests")
    call = CompatCall(request, max(DIALECT.deadline_s, min(298.0, 10 * body.max_execution_time - 2)))
    limits = call.limits(body.max_execution_time)
    language = tested.language or "python"
    tests = tested.graded(language, Grader.of(request))
    item = ExecuteItem(language=language, programs=[body.program], tests=tests, limits=limits)
    program = await call.while_connected(call.with_retries(lambda: _judged(call, item)))
    return JSONResponse(
        {
            "results": [int(test.verdict is Verdict.PASSED) for test in program.tests],
            "runtimes": [round(test.wall_ms / 1000, 6) for test in program.tests],
        }
    )


async def _judged(call: CompatCall, item: ExecuteItem) -> ProgramResult:
    return judged(await call.judge(item))


class _TextOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the pickle names {module}.{name}, and only plain values are read")


def decoded(tests: Any) -> Any:
    """Tests as they are, or decoded from LiveCodeBench's form. Raises Invalid."""
    if not isinstance(tests, str) or tests.lstrip()[:1] in ("[", "{"):
        return tests
    try:
        text = _TextOnly(io.BytesIO(inflated(tests, "tests"))).load()
        return json.loads(text) if isinstance(text, str) else text
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise Invalid(f"tests: takes a list, or one in LiveCodeBench's encoding: {error}") from None
