"""The surface's weights: what tells a problem's samples apart is found, and what says how a sampler stopped is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plaudit.errors import UsageError
from service.scoring.reward_model import RewardModel
from service.scoring.spec import SPEC_FILE, RewardModelSpec
from service.scoring.surface import NUMBERS
from support.checkpoints import checkpoint
from training.data.programs import program_of
from training.pipeline.config import FitConfig, PairConfig
from training.pipeline.records import Problem, ProgramRecord
from training.reward_model.surface_fit import SurfacePairs, add_surface, fitted

RULE = PairConfig(rejected_above_zero=False)
GOOD = "    doubled = 2 * x\n    return doubled"
BAD = "    doubled = 2 * x\n    return duobled"  # a name that nothing defines


def problem(name: str, fold: str = "train", language: str = "python") -> Problem:
    prompt = f'def {name}(x):\n    """Twice x."""\n'
    one = Problem(name, name, prompt, name, None, "", ("assert True",), "own", "Apache-2.0", language=language)
    return replace(one, fold=fold)  # type: ignore[arg-type]


def samples(one: Problem, **bodies: tuple[str, float, int]) -> list[ProgramRecord]:
    return [
        replace(program_of(one, one.prompt + body, "sample", "own", "Apache-2.0", pass_rate=rate), iid_copies=copies)
        for body, rate, copies in bodies.values()
    ]


def test_a_name_that_nothing_defines_weighs_against_a_program(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    problems = {name: problem(name) for name in ("twice", "double", "both")}
    programs = [p for one in problems.values() for p in samples(one, good=(GOOD + "\n", 1.0, 3), bad=(BAD, 0.0, 2))]
    before = RewardModel.load(folder)
    unseen = [before.encode("def f(x):\n", body) for body in (GOOD, BAD)]
    plain = before.score(unseen)
    model = add_surface(before, folder, problems, programs, RULE, FitConfig(surface=2.0))

    weights = {weight.name: weight.weight for weight in RewardModelSpec.read(folder / SPEC_FILE).surface or ()}
    assert weights["undefined_names"] < 0
    assert not {"characters", "ends_with_newline", "comments"} & set(weights)
    gains = [after - score for after, score in zip(model.score(unseen), plain, strict=True)]
    assert gains[0] > gains[1]


def test_other_models_answers_count_as_much_as_asked_for(tmp_path: Path) -> None:
    """One problem's samples say that a loop is good, another's answers, in JavaScript, that it is bad."""
    folder = checkpoint(tmp_path / "model")
    problems = {"twice": problem("twice"), "double": problem("double", language="javascript")}
    loop, plain = "    for i in (1, 2):\n        x = x + i\n    return x", "    return 2 * x"
    programs = samples(problems["twice"], good=(loop, 1.0, 2), bad=(plain, 0.0, 1))
    programs += samples(problems["double"], good=(plain, 1.0, 0), bad=(loop, 0.0, 0))

    def weight_of_loops(surface_answers: float) -> float:
        settings = FitConfig(surface=1.0, surface_answers=surface_answers)
        add_surface(RewardModel.load(folder), folder, problems, programs, RULE, settings).close()
        return {w.name: w.weight for w in RewardModelSpec.read(folder / SPEC_FILE).surface or ()}["fors"]

    assert weight_of_loops(0.0) > 0 > weight_of_loops(3.0)
    assert weight_of_loops(0.0) > weight_of_loops(0.3) > weight_of_loops(3.0)


def test_mutants_and_test_problems_say_nothing(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    problems = {"twice": problem("twice"), "double": problem("double", "test")}
    programs = [replace(p, origin="mutant") for p in samples(problems["twice"], good=(GOOD, 1.0, 0), bad=(BAD, 0.0, 0))]
    programs += samples(problems["double"], good=(GOOD, 1.0, 1), bad=(BAD, 0.0, 1))
    with pytest.raises(UsageError, match="no training problem has a pair of samples"):
        add_surface(RewardModel.load(folder), folder, problems, programs, RULE, FitConfig(surface=1.0))


def test_the_share_scales_every_weight() -> None:
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(6, len(NUMBERS), generator=generator, dtype=torch.float64)
    groups = [SurfacePairs(numbers, torch.tensor([(0, 3), (1, 4), (2, 5)]))]
    once, twice = fitted(groups, 1.0), fitted(groups, 2.0)
    assert [w.weight for w in twice] == pytest.approx([2 * w.weight for w in once], abs=1e-4)
    assert any(abs(w.weight) > 0.01 for w in once)
