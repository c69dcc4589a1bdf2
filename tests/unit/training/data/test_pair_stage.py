"""`pair` reads one problem at a time and says of the data what the paper's tables say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from plaudit.errors import Invalid
from training.data.preferences import build_pairs
from training.pipeline.config import PairConfig, Recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row
from training.pipeline.run import Run


def problem(name: str, fold: str = "train", source: str = "evol", tests: int = 5) -> dict[str, object]:
    made = Problem(name, name, "p", "f", None, "", tuple(f"assert f({n})" for n in range(tests)), source, "MIT")
    return as_row(made) | {"fold": fold}


def programs(name: str, *rates: tuple[float, int]) -> list[dict[str, object]]:
    return [
        as_row(
            ProgramRecord(
                f"{name}-{at}", name, "sample", "c", "s", "m", "", copies=times, iid_copies=times, pass_rate=rate
            )
        )
        for at, (rate, times) in enumerate(rates)
    ]


def write(folder: Path, rows: list[dict[str, object]]) -> tuple[Recipe, Run]:
    run = Run(folder, quiet=True)
    problems = [problem("a"), problem("b", source="oss", tests=9), problem("v", "validation"), problem("t", "test")]
    write_jsonl(folder / "problems.jsonl", problems)
    write_jsonl(folder / "verified.jsonl", rows)
    return dataclasses.replace(Recipe(), pair=PairConfig(rejected_above_zero=True)), run


def test_pairs_weights_and_tables(tmp_path: Path) -> None:
    rows = [
        *programs("a", (1.0, 3), (0.4, 1), (0.0, 4)),
        *programs("b", (1.0, 8)),
        *programs("v", (0.9, 1), (0.5, 1)),
        *programs("t", (1.0, 1), (0.5, 1)),
    ]
    recipe, run = write(tmp_path, rows)
    assert build_pairs(recipe, run) == {"pairs": 2, "train_problems": 1, "validation_problems": 1}
    found = list(read_jsonl(tmp_path / "pairs.jsonl"))
    assert [(r["fold"], r["chosen"], r["rejected"], r["weight"]) for r in found] == [
        ("train", "a-0", "a-1", 1.0),
        ("validation", "v-0", "v-1", 1.0),
    ]
    tables = json.loads((tmp_path / "statistics.json").read_text())
    evol = {"questions": 3, "tests": 15, "pairs": 2, "questions_with_pairs": 2, "samples": 12}
    assert tables["sources"]["evol"] == evol
    assert tables["sources"]["all"]["questions"] == 4
    assert tables["samples"]["pass@8"] == 1.0
    assert tables["samples"]["pass@1"] == pytest.approx((3 / 8 + 1 + 0 + 0.5) / 4)
    assert tables["samples"]["mean_pass_rate"] == pytest.approx((3 + 0.4 + 8 + 1.4 + 1.5) / 20)
    assert tables["samples"]["all_samples_pass"] == 0.25
    assert "| all | 4 | 6.00 | 20 | 2 | 2 |" in (tmp_path / "statistics.md").read_text()


def test_no_cap_and_no_weights_are_the_papers_own(tmp_path: Path) -> None:
    recipe, run = write(tmp_path, programs("a", *[(1.0, 1)] * 3, *[(0.5, 1)] * 4))
    papers = dataclasses.replace(recipe, pair=PairConfig(rejected_above_zero=True, max_per_problem=0, weighted=False))
    assert build_pairs(papers, run)["pairs"] == 12
    assert {r["weight"] for r in read_jsonl(tmp_path / "pairs.jsonl")} == {1.0}


def test_rows_of_a_problem_that_do_not_stand_together_are_refused(tmp_path: Path) -> None:
    recipe, run = write(tmp_path, [*programs("a", (1.0, 1)), *programs("b", (1.0, 1)), *programs("a", (0.5, 1))])
    with pytest.raises(Invalid, match="a do not stand together"):
        build_pairs(recipe, run)
    assert not (tmp_path / "pairs.jsonl").exists()
