"""A sheet holds a fair sample of a run's tests, and its verdicts become a share with an interval."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from training.pipeline.cli import main
from training.pipeline.files import write_jsonl
from training.pipeline.metrics import wilson
from training.pipeline.records import Problem, as_row, read_problems
from training.pipeline.run import Run
from training.synthesis.sheet import drawn

PROBLEMS = [
    Problem(
        f"T/{at}",
        f"T/{at}",
        f"Add {at} <b>.</b>",
        "f",
        f"def f(x):\n    return x + {at}\n",
        "",
        tuple(f"assert f({n}) == {n + at}" for n in range(size)),
        source=f"s{at % 2}",
        license="MIT",
    )
    for at, size in enumerate((1, 7, 0, 4, 12))
]


def run_with(folder: Path) -> Run:
    run = Run(folder, quiet=True)
    write_jsonl(run.path("problems.jsonl"), map(as_row, PROBLEMS))
    return run


def test_every_test_has_the_same_chance_to_be_drawn(tmp_path: Path) -> None:
    problems = read_problems(run_with(tmp_path).path("problems.jsonl"))
    counts: Counter[str] = Counter()
    for seed in range(2000):
        entries = drawn(problems, 6, seed)
        assert len({entry.name for entry in entries}) == 6
        counts.update(entry.name for entry in entries)
    assert len(counts) == 24
    assert all(400 < count < 600 for count in counts.values())  # 500 each
    assert [entry.test for entry in drawn(problems, 99, 1)] == [test for p in PROBLEMS for test in p.tests]


def judged(path: Path, verdicts: list[str]) -> Path:
    with (path / "sheet.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    for row, verdict in zip(rows, verdicts, strict=False):
        row["verdict"] = verdict
    out = path / "judged.csv"
    with out.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["sheet", *map(str, arguments)]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_verdicts_become_a_share_with_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_with(tmp_path)
    assert told(capsys, tmp_path, "--tests", 20)["of"] == 24
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<article") == 20
    assert "&lt;b&gt;" in page
    assert "<b>.</b>" not in page
    assert "http" not in page
    out = judged(tmp_path, ["right"] * 15 + ["Wrong "] + ["unclear"] * 2)
    answer = told(capsys, tmp_path, "--read", out)
    assert {name: answer[name] for name in ("right", "wrong", "unclear", "empty")} == {
        "right": 15,
        "wrong": 1,
        "unclear": 2,
        "empty": 2,
    }
    assert answer["precision"] == 0.9375
    assert answer["interval"] == [round(bound, 4) for bound in wilson(15, 16)]
    assert answer["at_least"] == round(wilson(15, 18)[0], 4)
    assert set(answer["sources"]) == {"s0", "s1"}


def test_the_interval_is_wilsons() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[0] == pytest.approx(0.7225, abs=1e-4)  # from tables
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_a_sheet_that_does_not_fit_is_rejected_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path)
    told(capsys, tmp_path, "--tests", 20)

    def error(path: Path) -> str:
        assert main(["sheet", str(tmp_path), "--read", str(path)]) != 0
        return capsys.readouterr().err

    assert "verdict 'maybe' is not one of right, wrong, unclear" in error(judged(tmp_path, ["right", "maybe"]))
    assert "no test has the verdict" in error(judged(tmp_path, []))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "no column id" in error(tmp_path / "other.csv")
    out = judged(tmp_path, ["right"] * 20)
    write_jsonl(run.path("problems.jsonl"), [as_row(p) | {"tests": [*p.tests][::-1]} for p in PROBLEMS])
    assert "has changed since the sheet was made" in error(out)
    write_jsonl(run.path("problems.jsonl"), [as_row(p) for p in PROBLEMS[1:]])
    assert "row 2: T/0#0: the run has no such test" in error(out)
