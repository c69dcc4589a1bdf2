"""`plaudit-train audit` as it runs: a sandbox of its own, a folder of reports, and a page."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

import sandbox.judge
from sandbox.capabilities import HostCapabilities
from sandbox.errors import SandboxError
from sandbox.types import Program, Report
from support.stack import Stack
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


@needs_walls
def test_a_running_service_audits_as_the_sandbox_does(tmp_path: Path, stack: Stack) -> None:
    rows = [
        toy("good", "assert add(1, 2) == 3", "assert add(5, 2) == 7"),
        toy("wrong", "assert add(1, 2) == 4"),
        {"id": "unreadable", "tests": {"kind": "assert", "asserts": ["assert add("]}},
    ]
    write_jsonl(tmp_path / "suites.jsonl", rows)
    reports = []
    for name, more in (("here", []), ("there", ["--url", stack.url])):
        out = tmp_path / name
        assert main(["audit", str(tmp_path / "suites.jsonl"), "--out", str(out), *more]) == 0
        found = {row["id"]: row for row in read_jsonl(out / "reports.jsonl")}
        reports.append({key: (row["verdict"], row["mutation_score"], row["hackable"]) for key, row in found.items()})
        assert (out / "report.html").is_file()
    assert reports[0] == reports[1]
    assert {key: row[0] for key, row in reports[0].items()} == {
        "good": "good",
        "wrong": "broken",
        "unreadable": "broken",
    }


@needs_walls
def test_a_report_with_server_errors_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = sandbox.judge.judge

    def failing(program: Program, suite: Any, *more: Any) -> Report:
        if "9" in "".join(getattr(suite, "asserts", ())):
            raise SandboxError("no jail can be made")
        return judge(program, suite, *more)

    write_jsonl(
        tmp_path / "suites.jsonl", [toy("unlucky", "assert add(4, 5) == 9"), toy("good", "assert add(1, 2) == 3")]
    )
    arguments = ["audit", str(tmp_path / "suites.jsonl"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(sandbox.judge, "judge", failing)
        assert main(arguments) != 0
    assert "1 of 2 suites met server errors (unlucky)" in capsys.readouterr().err
    assert [row["id"] for row in read_jsonl(tmp_path / "out" / "reports.jsonl")] == ["good"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["server_errors"] == 1
    assert main(arguments) == 0
    assert "2 suites, 1 audited before" in capsys.readouterr().err
    assert {row["server_errors"] for row in read_jsonl(tmp_path / "out" / "reports.jsonl")} == {0}


def test_a_line_that_is_no_item_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "suites.jsonl", [toy("good", "assert add(1, 2) == 3"), {"tests": {"kind": "nothing"}}])
    assert main(["audit", str(tmp_path / "suites.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "line 2" in capsys.readouterr().err


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.extended
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
