"""Judge once more what was judged before, and tell whether the verdicts are the same: `plaudit execute --replay`.

The material comes from `GET /requests/{id}/replay`, or from a file in which somebody kept that answer; it is run by
the service that is asked now, whose cache has no say in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from plaudit.async_client import AsyncClient
from plaudit.errors import EXIT_FAILED, EXIT_OK, UsageError
from plaudit.schemas import GivenVerdict, ProgramResult, ReplayAnswer


def kept(source: str) -> ReplayAnswer | None:
    """The replay in a file of that name; None if there is no such file, so that it must be a request's id."""
    path = Path(source)
    if not path.is_file():
        return None
    try:
        return ReplayAnswer.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"--replay {source}: {error}") from error


async def again(client: AsyncClient, replay: ReplayAnswer, sink: TextIO, deadline_ms: int) -> int:
    """Run it and write a line a program; answers the exit code, 1 where anything differs."""
    same = True
    for at, item in enumerate(replay.items):
        answer = await client.execute([item.request], use_cache=False, deadline_ms=deadline_ms)
        for number, (given, now) in enumerate(zip(item.given, answer.results[0].programs, strict=True)):
            line = compared(given, now)
            same = same and line["same"]
            sink.write(json.dumps({"item": at, "program": number, "sha256": given.sha256, **line}) + "\n")
    return EXIT_OK if same else EXIT_FAILED


def compared(given: GivenVerdict, now: ProgramResult) -> dict[str, Any]:
    """The verdicts then and now; tests count as well where both have them."""
    then, today = [given.verdict, *given.tests], [now.verdict, *(test.verdict for test in now.tests)]
    return {"given": given.verdict, "now": now.verdict, "status": now.status, "same": then == today}
