"""Judging many programs once: by sandboxes of our own, or by a running service (`verify.service`).

- A program is judged once, by the hash of its text, its tests and its limits, whichever stage asks.
- Each result is in a journal before the next is waited for; a killed run loses only what was in flight.
- What could not be judged is an `infra_error`: it has no pass rate, and the next run tries it again.
- Tests that no judge can use are `invalid`: their programs have no pass rate, and are not tried again.
- A service that does not answer raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from training.data.judge_local import judge_locally
from training.data.judge_task import JudgeTask
from training.data.verify_remote import judge_remotely
from training.pipeline import config
from training.pipeline.journal import Journal
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run

JUDGED = ("ok", "invalid")


def not_judged(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results that another try may improve."""
    return [result for result in results if result["status"] not in JUDGED]


def judge_all(
    tasks: Sequence[JudgeTask],
    run: Run,
    processes: int,
    *,
    name: str = "verify.jsonl",
    settings: config.VerifyConfig | None = None,
    judged: Callable[[Sequence[JudgeTask]], Iterable[dict[str, Any]]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Results by task key: rows with a pass rate, or with status `infra_error` or `invalid` and without one.

    Args:
        tasks: what to judge; a key is judged once.
        run: holds the journal.
        processes: local sandboxes at once.
        name: the journal's file. What it holds is not judged again, infra errors excepted.
        settings: a service that they name judges instead of local sandboxes.
        judged: yields the results instead of both.

    Raises:
        HostLacks: where this host cannot run a sandbox.
        PlauditError: what the client raises for a service that does not answer.
    """
    if judged is None and settings is not None and settings.service:
        judged = partial(judge_remotely, settings=settings)
    judged = judged or partial(judge_locally, processes=processes)
    by_key = {task.key: task for task in tasks}
    with Journal(run.path(name)) as journal:
        results = {key: row for key, row in journal.rows.items() if key in by_key}
        to_judge = [task for key, task in by_key.items() if results.get(key, {}).get("status") not in JUDGED]
        num_before = len(by_key) - len(to_judge)
        run.say(f"verify: {len(by_key)} programs, {num_before} judged before")
        progress = StageProgress(run, "verify", len(by_key))
        for at, result in enumerate(judged(to_judge), start=num_before + 1):
            results[result["key"]] = result
            journal.add(result)
            progress.at(at)
    return results
