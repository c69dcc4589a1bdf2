"""Every kind of checkpoint that docs/scoring.md names loads, and scores as the class that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from service.scoring.process_rewards import StepScores
from service.scoring.reward_model import RewardModel
from support.kind_makers import COMPLETIONS, PROMPT
from support.kinds import KINDS, Kind

TOLERANCE = {"float32": {"abs": 1e-4}, "bfloat16": {"abs": 0.3, "rel": 0.1}}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in KINDS])
def test_a_checkpoint_scores_as_its_own_class(tmp_path: Path, kind: Kind, dtype: str) -> None:
    own = kind.make(tmp_path)
    assert (tmp_path / "reward_model.json").is_file() == (kind.spec is not None)

    model = RewardModel.load(kind.path.format(folder=tmp_path), dtype=dtype)
    scores = model.score([model.encode(PROMPT, completion) for completion in COMPLETIONS])

    with torch.inference_mode():
        expected: list[Any] = [own(PROMPT, completion) for completion in COMPLETIONS]
    flat = [value for score in scores for value in (score.steps if isinstance(score, StepScores) else (float(score),))]
    right = [value for score in expected for value in (score if isinstance(score, list) else [score])]
    assert flat == pytest.approx(right, **TOLERANCE[dtype])
    assert len({round(value, 3) for value in right}) > 1
