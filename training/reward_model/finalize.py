"""How every fit ends: the checkpoint's calibration, and the golden set that a scorer must reproduce."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.errors import TooLong, UsageError
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.metrics import platt
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run

if TYPE_CHECKING:
    from service.scoring.encoder import Encoded, Encoder
    from service.scoring.reward_model import RewardModel

GOLDEN = Path(__file__).parents[1] / "recipes" / "golden.jsonl"


@dataclass(frozen=True, slots=True)
class FittedModel:
    """What a trainer leaves in `checkpoint/`: weights, tokenizer and spec, without calibration and golden set.

    `summary`: the stage's numbers. `calibration_scores`: scores of `calibration_samples`, in their order; None:
    the checkpoint is asked. `remove_state`: deletes the resumable state, once the checkpoint is whole.
    """

    summary: dict[str, Any]
    remove_state: Callable[[], None]
    calibration_scores: list[float] | None = None


def finish_checkpoint(
    run: Run,
    problems: dict[str, Problem],
    programs: Sequence[ProgramRecord],
    *,
    recipe: Recipe,
    scores: Sequence[float] | None = None,
    threads: int = 1,
) -> dict[str, float]:
    """Add the surface's head to `checkpoint/` if the recipe has one, calibrate it and write its golden set.

    Args:
        run: the run folder.
        problems: by task id.
        programs: all verified programs.
        recipe: says how much the surface counts.
        scores: of `calibration_samples`, in their order and without the surface; None: the checkpoint is asked.
        threads: torch's, for scoring.

    Returns:
        a and b of Platt's scaling; nothing, and no calibration, without a held-out program.

    Raises:
        UsageError: no example of the golden set fits into the length limit, or the surface has no pair to learn from.
    """
    from service.scoring.reward_model import RewardModel

    folder = run.path("checkpoint/config.json").parent
    model = RewardModel.load(folder, threads=threads)
    if recipe.fit.surface:
        from training.reward_model.surface_fit import add_surface

        model, scores = add_surface(model, folder, problems, programs, recipe.pair, recipe.fit), None
    samples, platt_ab = calibration_samples(problems, programs), dict[str, float]()
    if samples:
        platt_ab = calibrate(
            model, folder, samples, scores or score_programs(model, problems, samples, run, "fit: calibration")
        )
        if platt_ab["platt_a"] <= 0:
            run.say(
                "fit: on the validation problems, programs with higher scores pass no more often: the calibration "
                "gives every score the same probability"
            )
    else:
        run.say("fit: no calibration: no validation problem has samples with a pass rate")
    write_golden(model, folder)  # last: a checkpoint with a golden set is complete
    return platt_ab


def calibration_samples(problems: dict[str, Problem], programs: Iterable[ProgramRecord]) -> list[ProgramRecord]:
    """The independent samples of validation problems that have a pass rate, in their order."""
    return [
        program
        for program in programs
        if program.iid_copies and program.pass_rate is not None and problems[program.task_id].fold == "validation"
    ]


def calibrate(
    model: RewardModel, folder: Path, samples: Sequence[ProgramRecord], scores: Sequence[float]
) -> dict[str, float]:
    """Fit Platt's a and b on these samples and their scores, each problem with the same weight."""
    from service.scoring.reward_model import Calibration

    copies: dict[str, int] = defaultdict(int)
    for program in samples:
        copies[program.task_id] += program.iid_copies
    a, b = platt(
        scores,
        [program.pass_rate == 1.0 for program in samples],
        [100 * program.iid_copies / copies[program.task_id] / len(copies) for program in samples],
    )
    replace(model.spec, calibration=Calibration(round(a, 6), round(b, 6))).write(folder / "reward_model.json")
    return {"platt_a": round(a, 4), "platt_b": round(b, 4)}


def write_golden(model: RewardModel, folder: Path) -> None:
    """Write `golden.jsonl`: the examples that fit, with this checkpoint's scores.

    A scorer must reproduce them before it serves.
    """
    rows = [
        {**example, "tokens": len(encoded.ids), "score": model.score([encoded])[0]}
        for example, encoded in golden_examples(model.encoder)
    ]
    write_jsonl(folder / "golden.jsonl", rows)


def golden_examples(encoder: Encoder) -> list[tuple[dict[str, Any], Encoded]]:
    """The golden prompts and completions that fit into this encoder's limit, encoded.

    Raises `UsageError` if none fits.
    """
    examples = []
    for example in read_jsonl(GOLDEN):
        encoded = encoder.encode_group(example["prompt"], [example["completion"]])[0]
        if not isinstance(encoded, TooLong):
            examples.append((example, encoded))
    if not examples:
        limit = encoder.spec.max_length
        raise UsageError(f"fit.max_length is {limit} tokens: no example of the golden set is that short; raise it")
    return examples


def score_programs(
    model: RewardModel,
    problems: Mapping[str, Problem],
    programs: Sequence[ProgramRecord],
    run: Run | None = None,
    part: str = "",
) -> list[float]:
    """The served scores of these programs, in their order. A prompt that does not fit is truncated on the left.

    `run` and `part`: where the progress is told, and under which name.
    """
    by_task: dict[str, list[int]] = defaultdict(list)
    for at, program in enumerate(programs):
        by_task[program.task_id].append(at)
    progress = StageProgress(run, part, len(programs)) if run is not None else None
    scores: dict[int, float] = {}
    for task_id, places in by_task.items():  # whole problems, because what begins alike is computed once
        prompt = problems[task_id].prompt
        encoded = [model.encode(prompt, programs[at].completion, "truncate_left") for at in places]
        scores |= zip(places, model.score(encoded), strict=True)
        if progress is not None:
            progress.at(len(scores))
    return [scores[at] for at in range(len(programs))]
