"""What memory does not hold is read again from disk, in the same order and with the same result."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import InfraError
from training.data import judge_local, near_duplicates
from training.data.judge_task import JudgeTask, task_of
from training.data.judging import judge_all
from training.data.near_duplicates import band_rows, exact_near_duplicates
from training.data.program_files import ProgramFiles
from training.data.programs import program_of
from training.data.verify_remote import _groups
from training.generation.batch import complete_all
from training.generation.sources.base import CompletionRequest, TokenUsage
from training.pipeline.config import Recipe, SourceConfig
from training.pipeline.files import write_jsonl
from training.pipeline.journal import Journal
from training.pipeline.records import Problem, as_row
from training.pipeline.run import Run

PROBLEMS = [
    Problem(f"T/{at}", f"T/{at}", f"def f{at}(x):\n", f"f{at}", None, "", (f"assert f{at}(1)",), "own", "MIT")
    for at in range(5)
]


def programs_for(problem: Problem, count: int) -> list[Any]:
    return [program_of(problem, f"{problem.prompt}    return {n}\n", "sample", "own", "MIT") for n in range(count)]


# --- near duplicates -------------------------------------------------------------------------------------------------


def texts_with_copies(count: int) -> list[frozenset[str]]:
    """Texts of 60 words out of 4,000; every fifth is the one before with a few words changed."""
    draw = random.Random(3)
    texts: list[frozenset[str]] = []
    for at in range(count):
        words = set(draw.sample(range(4000), 60))
        if at % 5 == 4:
            words = set(map(int, texts[-1]))
            for word in draw.sample(sorted(words), draw.randint(0, 16)):
                words.remove(word)
                words.add(4000 + draw.randint(0, 10_000))
        texts.append(frozenset(map(str, words)))
    return texts


@pytest.mark.parametrize("threshold", [0.6, 0.7])
def test_many_near_duplicates_are_those_of_an_exact_search(monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
    texts = texts_with_copies(900)
    exact = set(exact_near_duplicates(texts, threshold))
    assert len(exact) > 100
    monkeypatch.setattr(near_duplicates, "EXACT", 100)
    monkeypatch.setattr(near_duplicates, "BLOCK", 128)
    hashed = set(near_duplicates.near_duplicates(iter(texts), threshold))
    assert hashed <= exact  # what is found is compared word by word
    assert len(exact - hashed) <= 1  # one in a thousand at the threshold, far fewer above


def test_a_pair_at_the_threshold_is_missed_once_in_a_thousand_at_most() -> None:
    for threshold in (0.4, 0.5, 0.6, 0.7, 0.8, 0.95):
        rows = band_rows(threshold)
        assert (1 - threshold**rows) ** (near_duplicates.NUM_HASHES // rows) <= near_duplicates.MISSED
    assert band_rows(0.8) > band_rows(0.6) > 1


# --- journals --------------------------------------------------------------------------------------------------------


def test_a_journals_rows_are_read_when_asked_however_long(tmp_path: Path) -> None:
    rows = {f"k{at}": {"key": f"k{at}", "text": "é\u2028" * at * 4000} for at in range(8)}  # up to 140 kB
    with Journal(tmp_path / "j") as journal:
        for row in rows.values():
            journal.add(row)
        journal.add({"key": "k3", "text": "later"})
        assert journal["k7"] == rows["k7"]
    again = Journal(tmp_path / "j")
    assert list(again) == list(rows)
    assert dict(again) == rows | {"k3": {"key": "k3", "text": "later"}}
    assert again.get("none") is None


# --- programs --------------------------------------------------------------------------------------------------------


def test_programs_of_files_come_problem_by_problem(tmp_path: Path) -> None:
    draw = random.Random(1)
    known = [program for problem in PROBLEMS for program in programs_for(problem, 4)]
    draw.shuffle(known)  # rows of one problem need not stand together
    write_jsonl(tmp_path / "a.jsonl", map(as_row, known[:11]))
    write_jsonl(tmp_path / "b.jsonl", map(as_row, known[11:]))
    files = ProgramFiles({problem.task_id: at for at, problem in enumerate(PROBLEMS)})
    files.add_file(tmp_path / "a.jsonl")
    files.add_file(tmp_path / "b.jsonl")
    assert len(files) == 20
    in_order = sorted(known, key=lambda program: program.task_id)
    assert list(files) == in_order
    assert list(files) == in_order  # as often as one likes


# --- judging ---------------------------------------------------------------------------------------------------------


def at_once(tasks: Iterable[JudgeTask]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        status = "infra_error" if "return 3" in task.solution else "ok"
        yield {"key": task.key, "program_id": task.program_id, "status": status, "pass_rate": 0.5, "detail": "x"}


def test_tasks_are_taken_as_the_judge_wants_them(tmp_path: Path) -> None:
    taken = judged = most = 0

    def tasks() -> Iterator[JudgeTask]:
        nonlocal taken
        for program in programs_for(PROBLEMS[0], 100):
            taken += 1
            yield task_of(PROBLEMS[0], program, 1.0)

    def judge(asked: Iterable[JudgeTask]) -> Iterator[dict[str, Any]]:
        nonlocal judged, most
        for row in at_once(asked):
            most = max(most, taken - judged)
            judged += 1
            yield row

    results = judge_all(tasks(), Run(tmp_path, quiet=True), judge)
    assert (judged, most) == (100, 1)
    assert results.num_tasks == 100
    assert len(results.not_judged) == 11  # 3, and 30 to 39
    again = judge_all(tasks(), Run(tmp_path, quiet=True), judge)
    assert judged == 111  # those alone
    assert again.num_tasks == 100


def test_processes_get_a_few_tasks_each_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real processes, of which each echoes its tasks."""
    taken = came = most = 0
    monkeypatch.setattr(judge_local, "_judge_in_child", echo)

    def tasks() -> Iterator[JudgeTask]:
        nonlocal taken, most
        for program in programs_for(PROBLEMS[0], 60):
            taken += 1
            most = max(most, taken - came)
            yield task_of(PROBLEMS[0], program, 1.0)

    keys = set()
    for row in judge_local.judge_locally(tasks(), 2):
        came += 1
        keys.add(row["key"])
    assert len(keys) == 60
    assert most <= 2 * judge_local.AHEAD + 1
    assert list(judge_local.judge_locally(iter(()), 2)) == []


def echo(to_judge: Any, results: Any, parent: int) -> None:
    for task in iter(to_judge.get, None):
        results.put({"key": task.key})


def test_processes_that_end_early_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_local, "_judge_in_child", end)
    tasks = [task_of(PROBLEMS[0], program, 1.0) for program in programs_for(PROBLEMS[0], 6)]
    with pytest.raises(InfraError, match="ended before"):
        list(judge_local.judge_locally(iter(tasks), 2))


def end(to_judge: Any, results: Any, parent: int) -> None:
    return


def test_neighbours_under_one_suite_are_one_request() -> None:
    tasks = [
        task_of(problem, program, cpu_s)
        for problem in PROBLEMS[:2]
        for cpu_s, count in ((5.0, 5), (0.5, 2))  # samples, then mutants
        for program in programs_for(problem, count)
    ]
    groups = list(_groups(iter(tasks), 3))
    assert [len(group) for group in groups] == [3, 2, 2, 3, 2, 2]
    assert [task for group in groups for task in group] == tasks


# --- replies ---------------------------------------------------------------------------------------------------------


def test_replies_are_asked_once_and_stay_on_disk(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", ({"key": f"q{at}", "texts": [f"text {at}"]} for at in range(6)))
    settings = SourceConfig(kind="recorded", path=str(tmp_path / "r.jsonl"))
    requests = [CompletionRequest(f"q{at}", "p", 1, at) for at in range(6)]
    ask = partial(complete_all, Recipe(), Run(tmp_path, quiet=True), "replies.jsonl", settings)
    first = ask(iter([*requests[:4], requests[0]]), TokenUsage())
    assert {key: reply.texts for key, reply in first.items()} == {f"q{at}": (f"text {at}",) for at in range(4)}
    usage = TokenUsage()
    changed = dataclasses.replace(requests[1], prompt="another")
    ask(iter([requests[0], changed, *requests[2:]]), usage)
    assert usage.requests == 6
    lines = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert len(lines) == 4 + 3  # the changed one, and the two that were new
