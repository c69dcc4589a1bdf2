"""`publish`: the folder that is served: the checkpoint, the report where there is one, and a model card.

The card names the recipe, the digests of the data, and the licences of everything that was learnt from. Its front
matter is for the hub (`cards`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.errors import UsageError
from service.scoring.checkpoint import IDENTITY
from training.data.public_data import data_file
from training.evaluation.cards import model_data, sources_in, with_front_matter
from training.evaluation.plots import FILES as PLOTS
from training.evaluation.report import format_interval
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl, write_text
from training.pipeline.records import read_problems, read_programs
from training.pipeline.run import Run

if TYPE_CHECKING:
    from service.scoring.reward_model import RewardModel

DATA = ("corpus.python.jsonl.gz", "problems.python.jsonl.gz", "samples.python.jsonl.gz", "labels.jsonl.gz")
REPORT = ("report.md", "report.json", *PLOTS)


def publish(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write the folder named by `publish`, and check that the copy reproduces its golden set.

    Raises `UsageError` if this run has no complete checkpoint, or if the copy does not reproduce it.
    """
    folder, checkpoint = Path(recipe.publish or f"models/{recipe.name}"), run.folder / "checkpoint"
    if not (checkpoint / "golden.jsonl").is_file():  # the last file that `fit` writes
        raise UsageError(f"{checkpoint} is missing or incomplete: run plaudit-train fit first")
    from service.scoring.reward_model import RewardModel

    folder.mkdir(parents=True, exist_ok=True)
    for old in {file for pattern in (*IDENTITY, *REPORT) for file in folder.glob(pattern)}:  # of another model
        old.unlink()
    for file in (*checkpoint.iterdir(), *(run.folder / name for name in REPORT if (run.folder / name).is_file())):
        shutil.copyfile(file, folder / file.name)
    model = RewardModel.load(folder)
    report = (
        json.loads((folder / "report.json").read_text(encoding="utf-8")) if (folder / "report.json").is_file() else None
    )
    if report is not None and not report.get("own_checkpoint", True):
        raise UsageError(
            f"{run.folder}/report.json is of another checkpoint (evaluate.checkpoint, evaluate.service): run evaluate "
            "again on this run's own, or publish without it"
        )
    if recipe.fit.base or report is None or recipe.hub.adapter:
        text = model_card(recipe, run, model)
    else:
        text = model_card_with_report(recipe, run, report, model.revision)
    write_text(folder / "README.md", with_front_matter(model_data(recipe, report, sources_in(text)), text))
    parity = model.check_golden()
    if not parity.ok:
        raise UsageError(
            f"{checkpoint}: its scores are {parity.max_abs_error:.3g} off its own golden set: run fit again"
        )
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return {"folder": folder.name, "revision": model.revision, "megabytes": round(size / 1e6, 1), **asdict(parity)}


def training_sources(run: Run) -> Counter[tuple[str, str]]:
    """Training programs by (source, licence)."""
    problems = read_problems(run.path("problems.jsonl"))
    learnt: Counter[tuple[str, str]] = Counter()
    for program in read_programs(run.path("verified.jsonl")):
        if problems[program.task_id].fold == "train":
            learnt[_source(program.source), program.license] += 1
    return learnt


def model_card(recipe: Recipe, run: Run, model: RewardModel) -> str:
    """The card of a checkpoint without numbers: what it is, and what it was trained on."""
    base = recipe.fit.base
    name = Path(base).name if Path(base).is_dir() else base  # no path of this machine
    origin = f"fitted from {name}, whose licence holds here, too" if base else "trained from nothing"
    note = "`report.md` tells how it chooses." if (run.folder / "report.md").is_file() else "It was not evaluated here."
    sources = [
        f"| {source} | {license_} | {count} |" for (source, license_), count in sorted(training_sources(run).items())
    ]
    named: dict[str, str] = {}
    if (run.folder / "inputs.json").is_file():
        for files in json.loads((run.folder / "inputs.json").read_text(encoding="utf-8")).values():
            named |= files
    digests = [f"| {name} | `{value}` |" for name, value in sorted(named.items())]
    return f"""# {recipe.name}

A reward model for code: {model.parameters:,} parameters, {model.architecture}, one score a completion, {origin}. {note}

Revision `{model.revision}`. `reward_model.json` holds the one template; `golden.jsonl` the scores that a scorer must
give again before it serves.

## Learnt from

| source | licence | programs |
|---|---|---|
{chr(10).join(sources)}

| file | digest |
|---|---|
{chr(10).join(digests)}
"""


def model_card_with_report(recipe: Recipe, run: Run, report: dict[str, Any], revision: str) -> str:
    """The card of a checkpoint that the mini recipe made, with the numbers of its report."""
    learnt = training_sources(run)
    for r in read_jsonl(data_file(recipe.data, "corpus.python.jsonl.gz")):
        learnt[_source(r["source"]), r["license"]] += 1
    numbers, folds = report["discrimination"], report["folds"]
    best = {row["ranker"]: row["points"] for row in report["best_of_n"]}
    last = best["reward model"][-1]
    accuracy, area = (format_interval(numbers[name]) for name in ("pair_accuracy", "auc"))
    gain = format_interval(last["gain"], 100, 1)
    wall, cpu = (
        f"{sum(record[key] for record in report['stages'].values() if record) / 60:.0f}" for key in ("wall_s", "cpu_s")
    )
    size, samples = f"{report['parameters']:,}", report["problems"]
    start, end, most = (
        f"{best[ranker][at]['value'] * 100:.1f} %"
        for ranker, at in (("mean (no choice)", 0), ("reward model", -1), ("oracle (pass@N)", -1))
    )
    split = ", ".join(f"{count} {fold}" for fold, count in folds.items())
    sources = [f"| {source} | {license_} | {count} |" for (source, license_), count in sorted(learnt.items())]
    digests = [f"| {name} | `{_sha256(data_file(recipe.data, name))[:32]}` |" for name in data_names(recipe)]
    seen = "functions, most of them in Python" if recipe.collect.languages else "Python functions only"
    return f"""# {recipe.name}

A small reward model for Python functions: {size} parameters, Qwen2 architecture, one score a completion. Trained from
nothing by `training/recipes/mini.toml` in {cpu} CPU minutes on one thread ({wall} by the clock of a machine that had
other work). It is there so that the service starts with a real model and every path can be tried; it is no substitute
for running tests.

Revision `{revision}`.

## What it can and cannot do

On {samples} problems that nothing in its training saw (100 samples each, CodeGen-16B-mono), with 95 % intervals over
problems:

- pair accuracy {accuracy}, AUC inside a problem {area}; chance is 0.5;
- best of {last["n"]}: {start} to {end}, a gain of {gain} points; the oracle has {most}.

It throws out broken programs better than it orders good-looking ones. A score compares completions of one prompt;
across prompts use the calibrated probability, and that with care. It has seen short {seen}.
`report.md` has the whole picture.

## Text

`reward_model.json` holds the one template. A signature with its docstring as prompt and the body as completion is the
form it knows best; a whole function, bare or fenced, the second best.

## Made by

```
plaudit-train all training/recipes/mini.toml --run runs/mini
```

Folds by problem: {split}. Tokenizer, text, mutants and pairs come from training
problems and from corpus functions without overlap with held-out ones. Pass rates of samples are the data's own labels;
mutants were judged in plaudit's sandbox, and a slice of the samples again (`report.md`, row verify).

| data file | sha256, first half |
|---|---|
{chr(10).join(digests)}

## Learnt from

| source | licence | rows |
|---|---|---|
{chr(10).join(sources)}

MBPP: Austin et al. 2021, "Program Synthesis with Large Language Models", CC-BY-4.0. The samples were written by the
models that their sources name. Weights and files here: Apache-2.0.
"""


def data_names(recipe: Recipe) -> list[str]:
    """The files of the public data that the recipe reads for its checkpoint."""
    settings = recipe.collect
    more = ["plus_tests.jsonl.gz"] if settings.extra_tests else []
    more += ["problems.codeio.jsonl.gz"] if settings.generated else []
    more += ["problems.multilang.jsonl.gz", "samples.multilang.jsonl.gz"] if settings.languages else []
    return [*DATA, *more]


def _source(name: str) -> str:
    """The repository or collection, without the path inside it."""
    return (
        name.split(" (", maxsplit=1)[0].split("@", maxsplit=1)[0].split(" ", maxsplit=1)[0]
        if "/" in name.split(" ", maxsplit=1)[0]
        else name
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
