"""A kill loses nothing that was judged, and what the sandbox could not do never becomes a pass rate."""

from __future__ import annotations

import ast
import dataclasses
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import InfraError
from training.data.judge_local import judge_locally
from training.data.judge_task import JudgeTask, task_of
from training.data.judging import judge_all
from training.data.mutate import mutants
from training.data.programs import program_of
from training.data.verify import verify_programs
from training.pipeline.config import Recipe, VerifyConfig
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import Problem, as_row
from training.pipeline.run import Run

PROBLEM = Problem(
    task_id="T/1",
    base_id="T/1",
    prompt='def double(x):\n    """Twice x."""\n',
    entry_point="double",
    canonical='def double(x):\n    """Twice x."""\n    if x < 0:\n        return -double(-x)\n    return 2 * x\n',
    test_setup="",
    tests=("assert double(2) == 4", "assert double(-3) == -6"),
    source="own",
    license="Apache-2.0",
)
PROGRAMS = [program_of(PROBLEM, f"{PROBLEM.prompt}    return {n} * x\n", "sample", "own", "MIT") for n in range(6)]


class FakeSandbox:
    """Passes programs that multiply by two; breaks on some, if asked; counts what it judged."""

    def __init__(self, breaks: str = "never", stop_after: int | None = None) -> None:
        self.breaks, self.stop_after = breaks, stop_after
        self.judged: list[str] = []

    def __call__(self, tasks: Sequence[JudgeTask]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            if self.stop_after is not None and len(self.judged) >= self.stop_after:
                raise KeyboardInterrupt
            self.judged.append(task.program_id)
            base = {"key": task.key, "program_id": task.program_id}
            if self.breaks in task.solution:
                yield {**base, "status": "infra_error", "detail": "SandboxError: no slot"}
            else:
                rate = float("2 * x" in task.solution)
                yield {**base, "status": "ok", "pass_rate": rate, "verdict": "passed", "verdicts": [], "detail": ""}


def use(monkeypatch: pytest.MonkeyPatch, sandbox: FakeSandbox) -> FakeSandbox:
    monkeypatch.setattr("training.data.judge_local.judge_shard", sandbox)
    return sandbox


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task_of(PROBLEM, program, 1.0) for program in PROGRAMS]
    run = Run(tmp_path, quiet=True)
    use(monkeypatch, FakeSandbox(stop_after=4))
    with pytest.raises(KeyboardInterrupt):
        judge_all(tasks, run, partial(judge_locally, processes=1))
    text = (tmp_path / "verify.jsonl").read_text()
    (tmp_path / "verify.jsonl").write_text(text[:-5])  # the kill came in the middle of a line

    second = use(monkeypatch, FakeSandbox())
    results = judge_all(tasks, run, partial(judge_locally, processes=1))

    assert second.judged == [program.program_id for program in PROGRAMS[3:]]
    assert results.num_tasks == 6
    assert [results[task.key]["status"] for task in tasks] == ["ok"] * 6
    assert len(list(read_jsonl(tmp_path / "verify.jsonl"))) == 6
    assert use(monkeypatch, FakeSandbox()).judged == []


def test_the_same_program_is_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = use(monkeypatch, FakeSandbox())
    task = task_of(PROBLEM, PROGRAMS[0], 1.0)
    judge = partial(judge_locally, processes=1)
    judge_all([task, task], Run(tmp_path, quiet=True), judge)
    judge_all([task], Run(tmp_path, quiet=True), judge)
    assert len(sandbox.judged) == 1
    judge_all([dataclasses.replace(task, key="other limits")], Run(tmp_path, quiet=True), judge)
    assert len(sandbox.judged) == 2


def prepare(folder: Path, infra: float) -> tuple[Recipe, Run]:
    run = Run(folder, quiet=True)
    write_jsonl(folder / "problems.jsonl", [as_row(PROBLEM)])
    write_jsonl(folder / "programs.jsonl", [as_row(dataclasses.replace(p, pass_rate=0.0)) for p in PROGRAMS[:3]])
    write_jsonl(folder / "mutants.jsonl", [as_row(dataclasses.replace(p, origin="mutant")) for p in PROGRAMS[3:]])
    return dataclasses.replace(Recipe(), verify=VerifyConfig(check=3, max_infra_errors=infra)), run


def test_infra_errors_are_no_pass_rates_and_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = prepare(tmp_path, infra=0.5)
    use(monkeypatch, FakeSandbox(breaks="return 4"))

    summary = verify_programs(recipe, run)

    verified = {r["program_id"]: r for r in read_jsonl(tmp_path / "verified.jsonl")}
    assert PROGRAMS[4].program_id not in verified
    assert verified[PROGRAMS[3].program_id]["label"] == "sandbox"
    assert summary["infra_errors"] == 1
    assert (summary["checked"], summary["same_rate"], summary["same_pass"]) == (3, 2, 2)
    assert [r["shipped"] for r in read_jsonl(tmp_path / "verify.disagreements.jsonl")] == [0.0]

    again = use(monkeypatch, FakeSandbox())
    assert verify_programs(recipe, run)["infra_errors"] == 0
    assert again.judged == [PROGRAMS[4].program_id]


def test_too_many_infra_errors_fail_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = prepare(tmp_path, infra=0.01)
    use(monkeypatch, FakeSandbox(breaks="return"))
    with pytest.raises(InfraError, match="6 of 6"):
        verify_programs(recipe, run)
    assert not (tmp_path / "verified.jsonl").exists()


def test_mutants_are_distinct_parse_and_begin_with_the_original() -> None:
    found = mutants(PROBLEM, 12, random.Random(1))
    assert PROBLEM.canonical is not None
    assert found[0] == ast.unparse(ast.parse(PROBLEM.canonical))
    assert len(found) == len(set(found)) == 13
    assert found == mutants(PROBLEM, 12, random.Random(1))
    for text in found:
        assert ast.parse(text)
        assert "Twice x." in text
