"""Pairs as token ids: what a fit of a pretrained checkpoint learns from is what the service will compute.

Ids come from the service's `Encoder` under the spec that is written beside the weights, closing included; the pooled
token is the last of them. A pair with a side that is too long is left out, because a cut would take that token away.
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
from training.reward_model.finalize import held_out
from training.reward_model.tokenizer import presented
from training.reward_model.trainer import FORMS, margins_of

FOLDS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Data sets with the columns of `rows_of`, and the encoder that made them. `too_long`: pairs left out.

    `held`: the ids of `ending.held_out`'s programs in their order, a prompt cut on the left where it does not fit.
    """

    train: Any
    validation: Any
    held: Any
    encoder: Encoder
    too_long: int

    @property
    def closing(self) -> set[int]:
        """Every id that is pooled somewhere."""
        columns = [(self.held, "end")]
        columns += [(fold, f"{side}_end") for fold in (self.train, self.validation) for side in ("chosen", "rejected")]
        return {int(end) for rows, name in columns for end in rows.unique(name)}


def load_pairs(recipe: Recipe, run: Run, base: Path, cache: Path) -> Pairs:
    """The pairs of `pairs.jsonl`, encoded once and kept in `cache`. Raises `UsageError` where none is left."""
    encoder = encoder_of(recipe, base)
    made = {
        fold: _kept(
            cache / f"{fold}.arrow",
            rows_of(recipe, run, encoder, fold),
            ids=("chosen", "rejected"),
            numbers=("weight", "margin"),
        )
        for fold in FOLDS
    }
    held = _kept(cache / "held.arrow", held_rows(run, encoder), ids=("",))
    if not len(made["train"]):
        raise UsageError(f"no training pair is within fit.max_length, {recipe.fit.max_length} tokens")
    count = sum(1 for _ in read_jsonl(run.path("pairs.jsonl")))
    return Pairs(made["train"], made["validation"], held, encoder, count - len(made["train"]) - len(made["validation"]))


def _kept(path: Path, rows: Iterator[dict[str, Any]], ids: Sequence[str], numbers: Sequence[str] = ()) -> Any:
    """The data set in this file; where there is none, of these rows. Read from the disk as it is used.

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


def _column(name: str, what: str) -> str:
    return f"{name}_{what}" if name else what


def held_rows(run: Run, encoder: Encoder) -> Iterator[dict[str, Any]]:
    """One row a program that the calibration is fitted on."""
    problems = read_problems(run.path("problems.jsonl"))
    for program in held_out(problems, read_programs(run.path("verified.jsonl"))):
        ids = encoder.encode(problems[program.task_id].prompt, program.completion, "truncate_left").ids
        yield {"ids": ids, "end": ids[-1]}


def rows_of(recipe: Recipe, run: Run, encoder: Encoder, fold: str) -> Iterator[dict[str, Any]]:
    """One row a pair of this fold: ids of both sides, their last ids, and the pair's weight and margin."""
    settings = recipe.fit
    problems = read_problems(run.path("problems.jsonl"))
    programs = {program.program_id: program for program in read_programs(run.path("verified.jsonl"))}
    pairs = [r for r in read_jsonl(run.path("pairs.jsonl")) if r["fold"] == fold]
    progress = StageProgress(run, f"fit: {fold} pairs encoded", len(pairs))
    known: dict[tuple[str, str], tuple[int, ...] | None] = {}
    task_id = ""
    for at, r in enumerate(pairs):
        if r["task_id"] != task_id:  # pairs of a problem stand together: the ids of one are kept
            task_id = r["task_id"]
            known.clear()
        form = _form(recipe, r, problems[task_id])
        sides = [programs[r[side]] for side in ("chosen", "rejected")]
        high, low = (_encoded(encoder, problems[task_id], program, form, known) for program in sides)
        if high and low:
            margin = margins_of(settings.margin, [(sides[0].pass_rate, sides[1].pass_rate)]) if settings.margin else [0]
            yield {
                "chosen_ids": high,
                "rejected_ids": low,
                "chosen_end": high[-1],
                "rejected_end": low[-1],
                "weight": r["weight"],
                "margin": margin[0],
            }
        progress.at(at + 1)


def _form(recipe: Recipe, pair: dict[str, Any], problem: Problem) -> str:
    draw = random.Random(f"{recipe.seed}:{pair['chosen']}:{pair['rejected']}")
    shown = problem.entry_point and pair["fold"] == "train" and draw.random() < recipe.fit.presentation
    return draw.choice(FORMS) if shown else "body"


def _encoded(
    encoder: Encoder,
    problem: Problem,
    program: ProgramRecord,
    form: str,
    known: dict[tuple[str, str], tuple[int, ...] | None],
) -> tuple[int, ...] | None:
    """The ids, or None for a text that is too long."""
    key = program.program_id, form
    if key not in known:
        prompt, completion = presented(program, problem.prompt, problem.entry_point, form)
        made = encoder.encode_group(prompt, [completion])[0]
        known[key] = None if isinstance(made, TooLong) else made.ids
    return known[key]
