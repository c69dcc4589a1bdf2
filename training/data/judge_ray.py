"""Judging over a Ray cluster: each executor owns a sandbox on its node, and judges a chunk of programs at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from training.data.judge_local import judge_tasks, local_sandbox
from training.data.judge_task import JudgeTask
from training.pipeline import config
from training.pipeline.ray_executors import chunked, results_on_ray


def judge_on_ray(tasks: Iterable[JudgeTask], settings: config.RayConfig) -> Iterator[dict[str, Any]]:
    """Results as they come, rows like those of a local sandbox.

    Raises `HostLacks` where a node has no sandbox, `InfraError` for a chunk on which executors end again and again.
    """
    for rows in results_on_ray(_sandbox, chunked(tasks, settings.chunk), settings):
        yield from rows


@contextmanager
def _sandbox() -> Iterator[Callable[[Sequence[JudgeTask]], list[dict[str, Any]]]]:
    with local_sandbox() as sandbox:
        yield lambda tasks: list(judge_tasks(tasks, sandbox))
