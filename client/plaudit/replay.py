"""Judge a request again and compare the verdicts: `plaudit execute --replay`.

The request comes from `GET /requests/{id}/replay`, or from a file with that answer. The service that is called now
runs it, without its cache.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from plaudit.async_client import AsyncClient
from plaudit.errors import EXIT_FAILED, EXIT_OK, UsageError
from plaudit.schemas import GivenVerdict, ProgramResult, ReplayAnswer


def read_file(source: str) -> ReplayAnswer | None:
    """The replay in a file of that name; None if there is no such file, so that `source` is a request's id."""
    path = Path(source)
    if not path.is_file():
        return None
    try:
        return ReplayAnswer.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"--replay {source}: {error}") from error


async def run_again(client: AsyncClient, replay: ReplayAnswer, sink: IO[str], deadline_ms: int) -> int:
    """Run it and write a line per program. Returns the exit code: 1 where a verdict differs."""
    same = True
    for index, item in enumerate(replay.items):
        answer = await client.execute([item.request], use_cache=False, deadline_ms=deadline_ms)
        for number, (given, now) in enumerate(zip(item.given, answer.results[0].programs, strict=True)):
            line = compare(given, now)
            same = same and line["same"]
            sink.write(json.dumps({"item": index, "program": number, "sha256": given.sha256, **line}) + "\n")
    return EXIT_OK if same else EXIT_FAILED


def compare(given: GivenVerdict, now: ProgramResult) -> dict[str, Any]:
    """The verdicts then and now; those of tests are compared, too."""
    before, after = [given.verdict, *given.tests], [now.verdict, *(test.verdict for test in now.tests)]
    return {"given": given.verdict, "now": now.verdict, "status": now.status, "same": before == after}
