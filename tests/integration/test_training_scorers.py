"""`evaluate` scores the same, whoever scores: a checkpoint in this process, or the model of a running service."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import NotFound, UsageError
from support.checkpoints import checkpoint
from support.stack import Stack
from training.data.programs import program_of
from training.evaluation.scorers import ServiceScorer, scorer_of
from training.pipeline.config import EvaluateConfig
from training.pipeline.records import Problem
from training.pipeline.run import Run

PROBLEMS = {
    f"T/{at}": Problem(f"T/{at}", f"T/{at}", f"def f{at}(x):\n", f"f{at}", None, "", (), "own", "MIT")
    for at in range(3)
}
PROGRAMS = [
    program_of(problem, f"{problem.prompt}    return x + {at}\n", "sample", "own", "MIT")
    for at in range(4)
    for problem in PROBLEMS.values()  # one problem's programs do not stand together
]


def test_a_folder_and_a_service_score_alike(stack: Stack, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", quiet=True)
    here = scorer_of(EvaluateConfig(checkpoint=str(stack.model), device="cpu"), run)
    there = scorer_of(EvaluateConfig(service=stack.url), run)
    scores = here.score(PROBLEMS, PROGRAMS)
    assert there.score(PROBLEMS, PROGRAMS) == pytest.approx(scores, abs=1e-4)
    assert len(set(scores)) == len(PROGRAMS)
    assert there.revision == here.revision
    assert (here.parameters or 0) > 0
    assert there.parameters is None
    assert there.probability(there.score(PROBLEMS, PROGRAMS[:1])[0]) == pytest.approx(here.probability(scores[0]))


def test_the_runs_own_checkpoint_is_the_default(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", quiet=True)
    checkpoint(run.path("checkpoint/config.json").parent)
    assert scorer_of(EvaluateConfig(), run).score(PROBLEMS, PROGRAMS[:1])


def test_what_cannot_score_is_said_by_name(stack: Stack, tmp_path: Path) -> None:
    run = Run(tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"evaluate\.checkpoint and evaluate\.service"):
        scorer_of(EvaluateConfig(service=stack.url, checkpoint="x"), run)
    with pytest.raises(NotFound, match="nobody"):
        ServiceScorer(EvaluateConfig(service=stack.url, model="nobody")).score(PROBLEMS, PROGRAMS)
