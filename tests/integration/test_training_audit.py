"""`plaudit-train audit` as it runs: a sandbox of its own, a folder of reports, and a page."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sandbox.capabilities import HostCapabilities
from training.pipeline.cli import main
from training.pipeline.files import read_jsonl, write_jsonl

DATA = Path(os.environ.get("PLAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_walls = pytest.mark.skipif(HostCapabilities.probe().level != "strong", reason="programs cannot run here")


def toy(name: str, *asserts: str) -> dict[str, Any]:
    reference = "def add(a, b):\n    return a + b\n"
    return {"id": name, "tests": {"kind": "assert", "asserts": list(asserts)}, "reference": reference, "mutants": 4}


@needs_walls
def test_the_audit_of_a_file_resumes_and_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ("assert add(1, 2) == 3", "assert add(5, 2) == 7")
    rows = [
        toy("good", *good),
        toy("wrong", "assert add(1, 2) == 4"),
        toy("weak", "assert add(0, 0) == 0"),
        toy("vacuous", "assert True"),
        toy("<script>", *good, "assert add(1, 2) == (3)"),
    ]
    write_jsonl(tmp_path / "suites.jsonl", rows)
    out = tmp_path / "out"
    arguments = ["audit", str(tmp_path / "suites.jsonl"), "--out", str(out)]
    assert main(arguments) == 0
    lines = (out / "reports.jsonl").read_text().splitlines(keepends=True)
    (out / "reports.jsonl").write_text("".join(lines[:3]) + lines[3][:40])  # a kill in the middle of a line
    capsys.readouterr()
    assert main(arguments) == 0
    assert "5 suites, 3 audited before" in capsys.readouterr().err
    reports = {row["id"]: row["verdict"] for row in read_jsonl(out / "reports.jsonl")}
    assert reports == {"good": "good", "wrong": "broken", "weak": "weak", "vacuous": "broken", "<script>": "good"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verdicts"] == {"broken": 2, "weak": 1, "unknown": 0, "good": 2}
    assert summary["duplicates"] == 1
    page = (out / "report.html").read_text()
    assert page.index(">wrong<") < page.index(">weak<") < page.index(">good<")
    assert "<script>" not in page
    assert "http" not in page


def test_a_line_that_is_no_item_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "suites.jsonl", [toy("good", "assert add(1, 2) == 3"), {"tests": {"kind": "nothing"}}])
    assert main(["audit", str(tmp_path / "suites.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "line 2" in capsys.readouterr().err


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@needs_walls
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "plus_tests.jsonl.gz").is_file(), reason="no public data")
def test_three_asserts_are_a_weaker_suite_than_many(tmp_path: Path) -> None:
    plus = {row["task_id"]: row["tests"] for row in _rows("plus_tests.jsonl.gz")}
    problems = [row for row in _rows("problems.python.jsonl.gz") if row["task_id"] in plus][:20]
    assert len(problems) == 20
    killed = {}
    for suite in ("few", "many"):
        rows = []
        for row in problems:
            asserts = row["tests"] + (plus[row["task_id"]][:30] if suite == "many" else [])
            tests = {
                "kind": "assert",
                "asserts": asserts,
                "setup": row["test_setup"],
                "entry_point": row["entry_point"],
            }
            item = {"id": row["task_id"], "tests": tests, "reference": row["canonical_solution"]}
            rows.append({**item, "mutants": 8, "hash_seeds": 1, "limits": {"cpu_s": 1}})
        write_jsonl(tmp_path / f"{suite}.jsonl", rows)
        assert main(["audit", str(tmp_path / f"{suite}.jsonl"), "--out", str(tmp_path / suite)]) == 0
        scores = {r["id"]: r["mutation_score"] for r in read_jsonl(tmp_path / suite / "reports.jsonl")}
        killed[suite] = {task_id: score["rate"] for task_id, score in scores.items() if score}
    both = killed["few"].keys() & killed["many"].keys()  # a reference that fails a test has no score
    assert len(both) >= 15
    assert sum(killed["few"][task_id] for task_id in both) < sum(killed["many"][task_id] for task_id in both)
