"""What every fit ends with: the checkpoint's calibration, and the golden set that a scorer must give again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.errors import TooLong, UsageError
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.metrics import platt
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run

if TYPE_CHECKING:
    from service.scoring.encoder import Encoded, Encoder
    from service.scoring.reward_model import RewardModel

GOLDEN = Path(__file__).parents[1] / "recipes" / "golden.jsonl"


def finish_checkpoint(
    run: Run,
    problems: dict[str, Problem],
    programs: Iterable[ProgramRecord],
    *,
    scores: Sequence[float] | None = None,
    threads: int = 1,
) -> dict[str, float]:
    """Calibrate `checkpoint/` and write its golden set; the a and b of Platt's scaling.

    `scores` are those of `held_out`, where they are known; otherwise the checkpoint is asked. Without any program held
    out there is no calibration, and nothing is returned. Raises `UsageError` where no example of the golden set fits
    into the length limit.
    """
    from service.scoring.reward_model import RewardModel

    folder = run.path("checkpoint/config.json").parent
    model = RewardModel.load(folder, threads=threads)
    held, found = held_out(problems, programs), {}
    if held:
        known = score_programs(model, problems, held) if scores is None else scores
        found = calibrate(model, folder, held, known)
    else:
        run.say("fit: no calibration: no validation problem has samples with a pass rate")
    write_golden(model, folder)  # last: what has it is whole
    return found


def held_out(problems: dict[str, Problem], programs: Iterable[ProgramRecord]) -> list[ProgramRecord]:
    """The independent samples of validation problems that have a pass rate, in their order."""
    return [
        program
        for program in programs
        if program.iid_copies and program.pass_rate is not None and problems[program.task_id].fold == "validation"
    ]


def calibrate(
    model: RewardModel, folder: Path, held: Sequence[ProgramRecord], scores: Sequence[float]
) -> dict[str, float]:
    """Fit Platt's a and b on these samples and their scores, each problem with the same weight."""
    from service.scoring.reward_model import Calibration

    copies: dict[str, int] = defaultdict(int)
    for program in held:
        copies[program.task_id] += program.iid_copies
    a, b = platt(
        scores,
        [program.pass_rate == 1.0 for program in held],
        [100 * program.iid_copies / copies[program.task_id] / len(copies) for program in held],
    )
    replace(model.spec, calibration=Calibration(round(a, 6), round(b, 6))).write(folder / "reward_model.json")
    return {"platt_a": round(a, 4), "platt_b": round(b, 4)}


def write_golden(model: RewardModel, folder: Path) -> None:
    """`golden.jsonl`: prompts and completions of our own, as many as the length limit lets in, with this checkpoint's
    scores, which a scorer must give again before it serves."""
    rows = [
        {**r, "tokens": len(encoded.ids), "score": model.score([encoded])[0]}
        for r, encoded in golden_texts(model.encoder)
    ]
    write_jsonl(folder / "golden.jsonl", rows)


def golden_texts(encoder: Encoder) -> list[tuple[dict[str, Any], Encoded]]:
    """The examples of a golden set that this encoder's limit lets in. Raises `UsageError` where it is none."""
    found = []
    for r in read_jsonl(GOLDEN):
        encoded = encoder.encode_group(r["prompt"], [r["completion"]])[0]
        if not isinstance(encoded, TooLong):
            found.append((r, encoded))
    if not found:
        limit = encoder.spec.max_length
        raise UsageError(f"fit.max_length is {limit} tokens: no example of the golden set is that short")
    return found


def score_programs(model: RewardModel, problems: dict[str, Problem], programs: Sequence[ProgramRecord]) -> list[float]:
    """The served scores of these programs, in their order; a prompt cut on the left where it does not fit."""
    return model.score([model.encode(problems[p.task_id].prompt, p.completion, "truncate_left") for p in programs])
