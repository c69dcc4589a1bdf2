"""A run is a reproduction where its data are the same and its numbers lie inside the published intervals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.evaluation.reproduce import compare, main

PUBLISHED = Path(__file__).parents[4] / "models" / "plaudit-mini"


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the published card and report, the report changed."""
    for name in ("README.md", "report.json"):
        shutil.copyfile(PUBLISHED / name, folder / name)
    report = json.loads((folder / "report.json").read_text())
    change(report)
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_the_published_checkpoint_reproduces_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PUBLISHED), str(PUBLISHED)]) == 0
    told = capsys.readouterr().out
    assert "samples.python.jsonl.gz" in told
    assert "reward model, N = 64" in told


def test_a_number_may_move_inside_its_interval_and_not_outside(tmp_path: Path) -> None:
    def move(to: float) -> list[str]:
        again = changed(tmp_path, lambda report: report["discrimination"]["pair_accuracy"].update(value=to))
        return [line.name for line in compare(PUBLISHED, again) if not line.same]

    published = json.loads((PUBLISHED / "report.json").read_text())["discrimination"]["pair_accuracy"]
    assert move(published["low"] + 0.001) == []
    assert move(published["low"] - 0.001) == ["pair_accuracy"]


def test_other_data_are_no_reproduction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = changed(tmp_path, lambda report: report["stages"]["pair"]["summary"].update(pairs=1))
    card = (again / "README.md").read_text()
    (again / "README.md").write_text(card.replace("labels.jsonl.gz | `0", "labels.jsonl.gz | `f"))
    assert main([str(PUBLISHED), str(again)]) == 1
    marked = [line for line in capsys.readouterr().out.splitlines() if "DIFFERENT" in line]
    assert [line.split(" | ")[0] for line in marked] == ["| labels.jsonl.gz", "| pair: pairs"]


def test_a_folder_that_was_not_published_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PUBLISHED), str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
