"""JSONL in, JSONL out: the same order, bounded in flight, one bad line costs one line, and an honest exit code."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plaudit.bulk import AHEAD, Answered, ProgressBar, Tally, run
from plaudit.errors import Invalid, Unauthorized, UsageError
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


async def test_a_file_of_another_command_serves_and_what_is_left_out_is_said() -> None:
    screen = io.StringIO()
    row = {**item(0), "tests": {"kind": "assert", "asserts": ["assert f() == 1"]}, "language": "python"}
    answers, tally, _ = await send([row, {**item(1), "tsets": 1}], screen=screen)
    assert [one["id"] for one in answers] == ["0", None]
    assert "tsets: there is no such field" in answers[1]["error"]["detail"]
    assert (tally.rejected, tally.exit_code) == (1, 2)
    assert "left out, as fields of another command: language, tests" in screen.getvalue()


async def test_the_terminal_says_which_lines_were_rejected_and_why() -> None:
    screen = io.StringIO()
    await send([item(0), '{"prompt": [', *["{}"] * 7], screen=screen)
    said = screen.getvalue()
    assert "  line 2: not JSON: EOF while parsing a list at column 12\n" in said
    assert "  line 6: " in said
    assert "  line 7: " not in said
    assert "  and 3 more; they are in the output, with their lines\n" in said


async def resumed(rows: list[dict[str, Any]], before: str, tmp_path: Path) -> tuple[list[dict[str, Any]], Tally, Fake]:
    """The output after a run that goes on where one stopped that had written `before`."""
    out, fake = tmp_path / "out.jsonl", Fake()
    out.write_text(before)
    done = Answered.of(str(out))
    lines = io.BytesIO(b"\n".join(json.dumps(row).encode() for row in rows) + b"\n\n")
    with out.open("a") as sink:
        progress = ProgressBar(len(lines.getvalue()), io.StringIO())
        tally = await run(fake, ScoreItem, lines, sink, batch=2, concurrency=1, progress=progress, done=done)
    return [json.loads(line) for line in out.read_text().splitlines()], tally, fake


async def test_an_interrupted_run_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    rows = [item(n) for n in range(7)]
    before = "".join(json.dumps({"id": str(n), "from": "before"}) + "\n" for n in range(3)) + '{"id": "3", "compl'
    answers, tally, fake = await resumed(rows, before, tmp_path)
    assert [one["id"] for one in answers] == [str(n) for n in range(7)]
    assert ["from" in one for one in answers] == [True] * 3 + [False] * 4
    assert (sum(fake.sizes), tally.resumed, tally.items, tally.read_bytes) == (4, 3, 4, tally.total_bytes)


async def test_a_finished_run_has_nothing_left_to_do_and_no_run_everything(tmp_path: Path) -> None:
    rows = [item(n) for n in range(3)]
    answers, _, fake = await resumed(rows, "".join(json.dumps({"id": str(n)}) + "\n" for n in range(3)), tmp_path)
    assert (len(answers), fake.sizes) == (3, [])
    assert Answered.of(str(tmp_path / "never.jsonl")) == Answered(0, None)


@pytest.mark.parametrize("ids", [["0", "9"], ["0", "1", "2", "3"]], ids=["other ids", "more lines"])
async def test_the_output_of_another_input_is_not_gone_on_with(ids: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of another input"):
        await resumed([item(n) for n in range(3)], "".join(json.dumps({"id": one}) + "\n" for one in ids), tmp_path)


async def test_line_numbers_are_those_of_the_file_after_going_on(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [item(0), {"id": "1"}, {"id": "2"}]
    answers, _, _ = await resumed(rows, '{"id": "0"}\n', tmp_path)
    assert [one["line"] for one in answers[1:]] == [2, 3]
