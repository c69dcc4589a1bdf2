"""`publish`: the folder that is served, with everything that a reader needs to judge it.

What `fit` left in `checkpoint/`, the report, and a model card that names the recipe, the digests of the data and the
licences of everything that was learnt from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.config import Recipe
from training.plots import FILES as PLOTS
from training.records import data_file, read_problems, read_programs
from training.report import interval
from training.run import Run, read_jsonl, write_text

DATA = ("corpus.python.jsonl.gz", "problems.python.jsonl.gz", "samples.python.jsonl.gz", "labels.jsonl.gz")
CHECKPOINT = (
    "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "reward_model.json", "golden.jsonl",
)  # fmt: skip
REPORT = ("report.md", "report.json", *PLOTS)


def publish(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write the folder named by `publish` and check that what was written scores as it says."""
    from service.scoring.reward_model import RewardModel

    folder = Path(recipe.publish)
    folder.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINT:
        shutil.copyfile(run.path(f"checkpoint/{name}"), folder / name)
    for name in REPORT:
        shutil.copyfile(run.path(name), folder / name)
    model = RewardModel.load(folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    write_text(folder / "README.md", card(recipe, run, report, model.revision))
    parity = model.check_golden()
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return {"folder": folder.name, "revision": model.revision, "megabytes": round(size / 1e6, 1), **asdict(parity)}


def card(recipe: Recipe, run: Run, report: dict[str, Any], revision: str) -> str:
    """The model card."""
    problems = read_problems(run.path("problems.jsonl"))
    learnt: Counter[tuple[str, str]] = Counter()
    for program in read_programs(run.path("verified.jsonl")):
        if problems[program.task_id].fold == "train":
            learnt[_source(program.source), program.license] += 1
    for r in read_jsonl(data_file(recipe.data, "corpus.python.jsonl.gz")):
        learnt[_source(r["source"]), r["license"]] += 1
    found, folds = report["discrimination"], report["folds"]
    best = {row["ranker"]: row["points"] for row in report["best_of_n"]}
    last = best["reward model"][-1]
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
    digests = [f"| {name} | `{_sha256(data_file(recipe.data, name))[:32]}` |" for name in DATA]
    return f"""# {recipe.name}

A small reward model for Python functions: {size} parameters, Qwen2 architecture, one score a completion. Trained from
nothing by `training/recipes/mini.toml` in {cpu} CPU minutes on one thread ({wall} by the clock of a machine that had
other work). It is there so that the service starts with a real model and every path can be tried; it is no substitute
for running tests.

Revision `{revision}`.

## What it can and cannot do

On {samples} problems that nothing in its training saw (100 samples each, CodeGen-16B-mono), with 95 % intervals over
problems:

- pair accuracy {interval(found["pair_accuracy"])}, AUC inside a problem {interval(found["auc"])}; chance is 0.5;
- best of {last["n"]}: {start} to {end}, a gain of {interval(last["gain"], 100, 1)} points; the oracle has {most}.

It throws out broken programs better than it orders good-looking ones. A score compares completions of one prompt;
across prompts use the calibrated probability, and that with care. It has seen short Python functions only.
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
