"""Pairs as token ids, for TRL's trainer: the ids that are learnt from are the ids that the service will score.

Ids come from the service's `Encoder` under the spec that is written beside the weights, closing tokens included. The
last id is the pooled token. A pair with a side that is too long is left out: truncation would remove that token.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import TooLong, UsageError
from service.scoring.encoder import Encoder
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, ProgramRecord, read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.base_model import encoder_of
from training.reward_model.finalize import calibration_samples
from training.reward_model.loss import gaps_of
from training.reward_model.template import presented

FOLDS = ("train", "validation")
KnownIds = dict[tuple[str, str], tuple[int, ...] | None]  # (program id, form) → ids; None: too long


@dataclass(frozen=True, slots=True)
class PairDataset:
    """Data sets with the columns of `pair_rows`, and the encoder that made them.

    `too_long`: number of pairs left out. `calibration`: ids of `finalize.calibration_samples` in their order, a prompt
    truncated on the left where it does not fit.
    """

    train: Any
    validation: Any
    calibration: Any
    encoder: Encoder
    too_long: int

    @property
    def last_ids(self) -> set[int]:
        """Every id that is pooled somewhere."""
        columns = [(self.calibration, "end")]
        columns += [(fold, f"{side}_end") for fold in (self.train, self.validation) for side in ("chosen", "rejected")]
        return {int(end) for rows, name in columns for end in rows.unique(name)}

    @property
    def mean_weight(self) -> float:
        """Mean weight of a training pair."""
        return float(self.train.data.column("weight").to_numpy().mean())


def load_pairs(recipe: Recipe, run: Run, base: Path, cache: Path) -> PairDataset:
    """The pairs of `pairs.jsonl`, encoded once and kept in the folder `cache`.

    Raises `UsageError` if no training pair is short enough.
    """
    encoder = encoder_of(recipe, base)
    folds = {
        fold: _cached(
            cache / f"{fold}.arrow",
            pair_rows(recipe, run, encoder, fold),
            ids=("chosen", "rejected"),
            numbers=("weight", "margin"),
        )
        for fold in FOLDS
    }
    calibration = _cached(cache / "held.arrow", calibration_rows(run, encoder), ids=("",))
    if not len(folds["train"]):
        raise UsageError(f"no training pair is within fit.max_length, {recipe.fit.max_length} tokens: raise it")
    num_pairs = sum(1 for _ in read_jsonl(run.path("pairs.jsonl")))
    too_long = num_pairs - len(folds["train"]) - len(folds["validation"])
    return PairDataset(folds["train"], folds["validation"], calibration, encoder, too_long)


def _cached(path: Path, rows: Iterator[dict[str, Any]], ids: Sequence[str], numbers: Sequence[str] = ()) -> Any:
    """The data set in this file, which is made of these rows if it does not exist. It is read from disk as it is used.

    For each of `ids` a column of ids and one of the last of them, and a column for each of `numbers`.
    """
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    if not path.is_file():
        columns: dict[str, Any] = {}
        for name in ids:
            columns |= {_column(name, "ids"): List(Value("int32")), _column(name, "end"): Value("int32")}
        columns |= {name: Value("float32") for name in numbers}
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part")
        with ArrowWriter(features=Features(columns), path=str(scratch)) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        scratch.replace(path)
    return Dataset.from_file(str(path))


def _column(name: str, kind: str) -> str:
    return f"{name}_{kind}" if name else kind


def calibration_rows(run: Run, encoder: Encoder) -> Iterator[dict[str, Any]]:
    """One row per program that the calibration is fitted on."""
    problems = read_problems(run.path("problems.jsonl"))
    for program in calibration_samples(problems, read_programs(run.path("verified.jsonl"))):
        ids = encoder.encode(problems[program.task_id].prompt, program.completion, "truncate_left").ids
        yield {"ids": ids, "end": ids[-1]}


def pair_rows(recipe: Recipe, run: Run, encoder: Encoder, fold: str) -> Iterator[dict[str, Any]]:
    """One row per pair of this fold: ids of both sides, their last ids, and the pair's weight and margin."""
    settings = recipe.fit
    problems = read_problems(run.path("problems.jsonl"))
    programs = {program.program_id: program for program in read_programs(run.path("verified.jsonl"))}
    pairs = [pair for pair in read_jsonl(run.path("pairs.jsonl")) if pair["fold"] == fold]
    progress = StageProgress(run, f"fit: {fold} pairs encoded", len(pairs))
    known_ids: KnownIds = {}
    task_id = ""
    for number, pair in enumerate(pairs, start=1):
        if pair["task_id"] != task_id:  # pairs of a problem are consecutive: the ids of one problem are kept
            task_id = pair["task_id"]
            known_ids.clear()
        form = _form(recipe, pair, problems[task_id])
        better, worse = programs[pair["chosen"]], programs[pair["rejected"]]
        high, low = (_ids(encoder, problems[task_id], program, form, known_ids) for program in (better, worse))
        if high and low:
            rates = [(better.pass_rate, worse.pass_rate)]
            yield {
                "chosen_ids": high,
                "rejected_ids": low,
                "chosen_end": high[-1],
                "rejected_end": low[-1],
                "weight": pair["weight"] * (gaps_of(settings.scale, rates)[0] if settings.scale else 1),
                "margin": gaps_of(settings.margin, rates)[0] if settings.margin else 0,
            }
        progress.at(number)


def _form(recipe: Recipe, pair: dict[str, Any], problem: Problem) -> str:
    rng = random.Random(f"{recipe.seed}:{pair['chosen']}:{pair['rejected']}")
    has_function = problem.entry_point or problem.language != "python"
    whole = has_function and pair["fold"] == "train" and rng.random() < recipe.fit.presentation
    return rng.choice(recipe.fit.forms) if whole else "body"


def _ids(
    encoder: Encoder, problem: Problem, program: ProgramRecord, form: str, known_ids: KnownIds
) -> tuple[int, ...] | None:
    """The program's ids, or None if it is too long; remembered in `known_ids`."""
    key = program.program_id, form
    if key not in known_ids:
        prompt, completion = presented(program, problem.prompt, problem.entry_point, form, problem.language)
        result = encoder.encode_group(prompt, [completion])[0]
        known_ids[key] = None if isinstance(result, TooLong) else result.ids
    return known_ids[key]
