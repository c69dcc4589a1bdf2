"""A pretrained checkpoint by the group loop: a decoder under its own template, an encoder with a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from service.scoring.reward_model import Encoded, RewardModel
from support.pretrained import write_base, write_encoder, write_run
from training.pipeline.cli import main
from training.pipeline.records import read_problems, read_programs
from training.reward_model.packed_forward import group_scores

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def fitted(monkeypatch: pytest.MonkeyPatch, recipe: Path, folder: Path) -> Any:
    """The model as the loop leaves it."""
    from training.reward_model import initial_model

    kept = []
    write = initial_model.write_checkpoint

    def spy(run: Any, base: Path, model: Any, *rest: Any) -> None:
        kept.append(model)
        write(run, base, model, *rest)

    monkeypatch.setattr(initial_model, "write_checkpoint", spy)
    assert main(["fit", str(recipe), "--run", str(folder), "--fit.loop", "groups", "--fit.lr", "0.003"]) == 0
    return kept[0]


@pytest.mark.parametrize("kind", ["llama", "encoder"])
def test_what_the_group_loop_fits_is_what_is_served(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_encoder(tmp_path / "base") if kind == "encoder" else write_base(tmp_path / "base", kind)
    recipe, folder = write_run(tmp_path, base, epochs=3)
    model = fitted(monkeypatch, recipe, folder)

    served = RewardModel.load(folder / "checkpoint")
    problems = read_problems(folder / "problems.jsonl")
    for program in list(read_programs(folder / "verified.jsonl"))[:12]:
        encoded = served.encode(problems[program.task_id].prompt, program.completion)
        with torch.no_grad():
            trained = group_scores(
                model, [(encoded.ids[: encoded.prompt_tokens], [encoded.ids[encoded.prompt_tokens :]])]
            )
        assert isinstance(encoded, Encoded)
        assert served.score([encoded])[0] == pytest.approx(float(trained), abs=1e-5)
    assert served.check_golden().ok
    assert served.spec.calibration is not None
    assert (folder / "checkpoint" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("loop", "complaint"),
    [
        ("groups", "fit.loop groups fits llama, qwen2 and encoders, not gemma"),
        ("both", "fit.loop is 'both'; it must be one of pairs, groups"),
    ],
)
def test_what_no_loop_can_fit_is_refused_by_name(
    loop: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = write_run(tmp_path, write_base(tmp_path / "base", "gemma"))
    assert main(["fit", str(recipe), "--run", str(folder), "--fit.loop", loop]) == 2
    assert complaint in capsys.readouterr().err
