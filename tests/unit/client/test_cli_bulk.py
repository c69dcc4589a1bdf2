"""JSONL in, JSONL out: the same order, bounded in flight, one bad line costs one line, and an honest exit code."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from plaudit.bulk import AHEAD, ProgressBar, Tally, run
from plaudit.errors import Invalid, Unauthorized
from plaudit.schemas import CompletionScore, ScoreItem, ScoreResult


class Fake:
    """A service that scores a completion by its length, refuses what says `refuse`, and counts what is in flight."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.now = self.most = 0

    async def __call__(self, items: Sequence[ScoreItem]) -> list[ScoreResult]:
        self.sizes.append(len(items))
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.002 * (len(self.sizes) % 5))
        self.now -= 1
        if any(item.prompt == "refuse" for item in items):
            raise Invalid("cannot be")
        return [ScoreResult(id=item.id, completions=[self.score(text) for text in item.completions]) for item in items]

    def score(self, text: str) -> CompletionScore:
        if text == "outage":
            return CompletionScore(status="infra_error", trainable=False)
        return CompletionScore(status="ok", score=float(len(text)), trainable=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def item(n: int, prompt: str = "p", completion: str = "c") -> dict[str, Any]:
    return {"id": str(n), "prompt": prompt, "completions": [completion]}


async def send(
    rows: list[Any], *, batch: int = 4, concurrency: int = 3, screen: io.StringIO | None = None
) -> tuple[list[dict[str, Any]], Tally, Fake]:
    fake, sink = Fake(), io.StringIO()
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"
    progress = ProgressBar(len(text), screen or io.StringIO())
    tally = await run(
        fake, ScoreItem, io.BytesIO(text.encode()), sink, batch=batch, concurrency=concurrency, progress=progress
    )
    return [json.loads(line) for line in sink.getvalue().splitlines()], tally, fake


async def test_results_keep_the_order_and_requests_stay_bounded() -> None:
    answers, tally, fake = await send([item(n) for n in range(101)])
    assert [one["id"] for one in answers] == [str(n) for n in range(101)]
    assert (tally.items, tally.completions, tally.exit_code) == (101, 101, 0)
    assert fake.most <= 3
    assert max(fake.sizes) <= 4


async def test_a_bad_line_costs_one_line_and_says_which() -> None:
    answers, tally, _ = await send([item(0), "not json", item(2, prompt="refuse"), "", item(4), {"id": "5"}], batch=8)
    assert [one.get("id") for one in answers] == ["0", None, "2", "4", None]
    assert [one["line"] for one in answers if "error" in one] == [2, 3, 6]
    assert answers[2]["error"] == {"code": "invalid", "detail": "cannot be", "retryable": False}
    assert "prompt (or messages): missing" in answers[4]["error"]["detail"]
    assert (tally.rejected, tally.exit_code) == (3, 2)


async def test_an_outage_on_the_services_side_is_exit_code_1() -> None:
    answers, tally, _ = await send([item(0), item(1, completion="outage"), item(2, prompt="refuse")])
    assert answers[1]["completions"][0]["score"] is None
    assert (tally.failed, tally.rejected, tally.exit_code) == (1, 1, 1)


async def test_what_meets_every_item_alike_ends_the_run() -> None:
    async def locked(items: Sequence[ScoreItem]) -> list[ScoreResult]:
        raise Unauthorized("no key")

    lines = io.BytesIO(b"".join(json.dumps(item(n)).encode() + b"\n" for n in range(50)))
    with pytest.raises(Unauthorized):
        await run(
            locked, ScoreItem, lines, io.StringIO(), batch=1, concurrency=2, progress=ProgressBar(None, io.StringIO())
        )
    assert len(lines.readlines()) >= 50 - 2 * AHEAD - 2


async def test_a_terminal_gets_a_bar_with_rate_and_time_left_and_a_file_gets_lines() -> None:
    screen = Terminal()
    _, tally, _ = await send([item(n) for n in range(8)], screen=screen)
    assert "\r" in screen.getvalue()
    assert "[####################] 100%  8 items  8 completions" in screen.getvalue()
    halfway = ProgressBar(200, screen)
    halfway.tally.read_bytes, halfway.tally.items, halfway.tally.completions = 100, 10, 40
    assert (
        halfway.text(halfway.tally.began + 4.0)
        == "[##########..........]  50%  10 items  40 completions  10.0/s  4 s left"
    )
    plain = io.StringIO()
    await send([item(0)], screen=plain)
    assert plain.getvalue().startswith("100%  1 items")
    assert "\r" not in plain.getvalue()
    assert tally.exit_code == 0
