"""`plaudit-train table` puts several runs' reports into the papers' tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.pipeline.cli import main


def write_report(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "report.json").write_text(text)


def report(data_set: str, model: str, sampler: str, rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "set": data_set,
        "reward_model": model,
        "samplers": [sampler],
        "languages": [{"way": way, "languages": cells, "average": 0.0} for way, cells in rows.items()],
    }


def solved(greedy: float, mean: float, oracle: float, *best: tuple[int, float]) -> dict[str, dict[str, float]]:
    rows = {"greedy": greedy, "mean of the samples": mean, "oracle, pass@16": oracle}
    rows |= {f"reward model, best of {n}": value for n, value in best}
    return {way: {"python": value} for way, value in rows.items()}


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    reports = [
        report("mbpp", "rm-7b", "policy_a", solved(0.5, 0.4, 0.9, (8, 0.55), (16, 0.6))),
        report("humaneval", "rm-7b", "policy_a", solved(0.6, 0.5, 1.0, (8, 0.7), (16, 0.66))),
        report("humaneval", "rm-32b", "policy_a", solved(0.6, 0.5, 1.0, (8, 0.8), (16, 0.82))),
        report(
            "multipl-e",
            "rm-7b",
            "policy_b",
            {
                "mean of the samples": {"cpp": 0.2, "java": 0.3},
                "reward model, best of 8": {"cpp": 0.25, "java": 0.35},
                "oracle, pass@8": {"cpp": 0.5, "java": 0.6},
            },
        ),
    ]
    for at, one in enumerate(reports):
        write_report(tmp_path / str(at), json.dumps(one))
    return [str(tmp_path / str(at)) for at in range(len(reports))]


def cells(text: str, block: str, name: str) -> list[str]:
    lines = text.partition(f"## {block}\n")[2].splitlines()
    return [
        cell.strip()
        for cell in next(line for line in lines if line.startswith(f"| {name} |".replace("  ", " "))).split("|")[2:-1]
    ]


def test_rows_columns_and_gains(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["table", *runs, "--out", str(out)]) == 0
    text = (out / "table.md").read_text()
    assert cells(text, "policy_a", "") == ["humaneval", "mbpp", "multipl-e cpp", "multipl-e java", "average"]
    assert cells(text, "policy_a", "greedy") == ["60.0", "50.0", "", "", ""]
    assert cells(text, "policy_a", "rm-7b, best of 16")[:2] == ["66.0", "60.0"]
    assert cells(text, "policy_a", "rm-32b, best of 16")[:2] == ["82.0", ""]
    # the best N by the average of its columns (16: 63.0, 8: 62.5), not column by column
    assert cells(text, "policy_a", "rm-7b, best of 16, less greedy")[:2] == ["+6.0", "+10.0"]
    assert cells(text, "policy_a", "rm-7b, best of 16, less mean")[:2] == ["+16.0", "+20.0"]
    assert cells(text, "policy_b", "oracle") == ["", "", "50.0", "60.0", ""]
    latex = (out / "table.tex").read_text()
    assert r"policy\_a" in latex
    assert r"rm-7b, best of 16 & 66.0 & 60.0 &  &  &  \\" in latex
    assert (out / "table.svg").read_text().startswith("<?xml")


def test_an_average_is_over_all_columns(runs: list[str], tmp_path: Path) -> None:
    assert main(["table", *runs[:2], "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert cells(text, "policy_a", "rm-7b, best of 8") == ["70.0", "55.0", "62.5"]


def test_what_cannot_be_a_table_is_said(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", runs[0], runs[0], "--out", str(tmp_path / "out")]) == 2
    assert "another run has rm-7b on mbpp" in capsys.readouterr().err
    assert main(["table", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "run plaudit-train evaluate first" in capsys.readouterr().err
    write_report(tmp_path / "old", "{}")
    assert main(["table", str(tmp_path / "old"), "--out", str(tmp_path / "out")]) == 2
    assert "older version" in capsys.readouterr().err
