"""Judging many programs once: by sandboxes of our own, by a running service, or over a Ray cluster.

- A program is judged once, by the hash of its text, its tests and its limits, whichever stage asks.
- Each result is in a journal before the next is waited for; a killed run loses only what was in flight.
- What could not be judged is an `infra_error`: it has no pass rate, and the next run tries it again.
- Tests that no judge can use are `invalid`: their programs have no pass rate, and are not tried again.
- A service that does not answer raises.
- Tasks are taken as the judge has room for them. Memory holds the keys, and the tasks in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from training.data.judge_local import judge_locally
from training.data.judge_ray import judge_on_ray
from training.data.judge_task import JudgeTask
from training.data.verify_remote import judge_remotely
from training.pipeline.config import Recipe
from training.pipeline.engines import judging_engine
from training.pipeline.journal import Journal
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run

JUDGED = ("ok", "invalid")
Judge = Callable[[Iterable[JudgeTask]], Iterator[dict[str, Any]]]  # a result per task, as they come


class JudgedPrograms:
    """Results by task key: rows with a pass rate, or with status `infra_error` or `invalid` and without one.

    `num_tasks`: tasks that were given, equal ones too. `not_judged`: results that another try may improve.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.num_tasks = 0
        self.not_judged: list[dict[str, Any]] = []

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._journal[key]


def judge_of(recipe: Recipe) -> Judge:
    """Who judges for this recipe. Raises `UsageError` for an engine that lacks a setting."""
    engine = judging_engine(recipe)
    if engine.name == "ray":
        return partial(judge_on_ray, settings=recipe.ray)
    if engine.name == "service":
        return partial(judge_remotely, settings=recipe.verify, url=engine.url)
    return partial(judge_locally, processes=recipe.verify.processes)


def judge_all(
    tasks: Iterable[JudgeTask], run: Run, judge: Judge, *, name: str = "verify.jsonl", total: int = 0
) -> JudgedPrograms:
    """Judge every task, and record the results.

    Args:
        tasks: what to judge; a key is judged once.
        run: holds the journal.
        judge: yields the results.
        name: the journal's file. What it holds is not judged again, infra errors excepted.
        total: how many tasks there are, for the progress; 0: not known.

    Raises:
        HostLacks: where this host, or a node of the cluster, cannot run a sandbox.
        PlauditError: what the client raises for a service that does not answer.
    """
    with Journal(run.path(name)) as journal:
        judged, asked = JudgedPrograms(journal), set[str]()
        progress = StageProgress(run, "verify", total)
        num_before = num_done = 0

        def to_judge() -> Iterator[JudgeTask]:
            nonlocal num_before, num_done
            for task in tasks:
                judged.num_tasks += 1
                if task.key in asked:
                    num_done += 1
                elif task.key in journal and journal[task.key]["status"] in JUDGED:
                    num_before, num_done = num_before + 1, num_done + 1
                else:
                    asked.add(task.key)
                    yield task

        for result in judge(to_judge()):
            journal.add(result)
            if result["status"] in JUDGED:
                asked.discard(result["key"])  # it is in the journal now
            else:
                judged.not_judged.append(result)
            num_done += 1
            progress.at(num_done)
    run.say(f"verify: {judged.num_tasks} programs, {num_before} judged before")
    return judged
