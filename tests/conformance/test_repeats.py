"""Trainers say everything twice: ROLL by design, verl forty times a program, everybody after a time-out."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.probes import PROBES, Case
from support.stack import Stack

NUMBERS = itertools.count(1)


def worked(stack: Stack) -> float:
    return sum(stack.metric(f'plaudit_jobs_total{{kind="{kind}",state="ok"}}') for kind in ("execute", "score"))


@pytest.mark.parametrize("name", PROBES)
def test_the_same_call_again_and_at_once_is_done_once(stack: Stack, name: str) -> None:
    salt, number = uuid.uuid4().hex, next(NUMBERS)
    case, probe, before = Case(f"# {salt}", "", salt), PROBES[name], worked(stack)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: probe.outcome(stack.url, case, number, None), range(4)))
    answers.append(probe.outcome(stack.url, case, number, None))
    assert answers == [probe.right(case, number) if probe.right is not None else answers[0]] * 5
    assert worked(stack) == before + 1
