"""The files in which a run folder describes itself.

- `recipe.json`: the recipe as it was resolved, so that a stage can be run again from the folder alone.
- `environment.json`: versions and machine, per stage, when it last ran.
- `inputs.json`: SHA-256 of every file from outside, per stage.
- `README.md`: what was done and which file holds what; rewritten after every stage.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.pipeline.config import Recipe
from training.pipeline.digests import file_digest
from training.pipeline.files import write_text
from training.pipeline.run import Run

PACKAGES = (
    "plaudit",
    "torch",
    "transformers",
    "tokenizers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "numpy",
    "ray",
    "rensa",
)
FILES = {
    "problems.jsonl": "problems with their tests and folds",
    "programs.jsonl": "distinct programs that the data brought",
    "samples": "programs that the sampler wrote, by shard, and its replies",
    "synthesis": "replies, runs, what was dropped and why, and `report.md` of the synthesis",
    "suites.jsonl": "strength of every synthesized suite",
    "sheet.html": "a sample of the tests, to be checked by hand",
    "mutants.jsonl": "near misses of reference solutions",
    "verified.jsonl": "programs with their pass rates",
    "verify.disagreements.jsonl": "where shipped labels and the sandbox differ",
    "pairs.jsonl": "which program is better than which",
    "statistics.md": "the data in numbers",
    "tokenizer": "the tokenizer",
    "pretrained": "the language model",
    "checkpoint": "the reward model, as the service loads it",
    "fit.jsonl": "losses and accuracies of the fit, step by step",
    "tensorboard": "fit.jsonl for TensorBoard",
    "report.md": "the evaluation, with plots",
    "crossval.md": "the cross-validation over all sampled problems",
    "recipe.json": "the recipe as it was resolved",
    "environment.json": "versions and machine",
    "inputs.json": "SHA-256 of every file that was read from outside",
}


def record_inputs(recipe: Recipe, run: Run, stage: str) -> None:
    """Write `recipe.json`, `environment.json` and `inputs.json` before a stage runs."""
    write_text(run.path("recipe.json"), json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    _update(run.path("environment.json"), stage, environment())
    _update(run.path("inputs.json"), stage, {name: file_digest(path) for name, path in input_files(recipe, stage)})


def environment() -> dict[str, Any]:
    """Versions, machine and time of this process."""
    import importlib.metadata

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": {name: value for name in ("OMP_NUM_THREADS",) if (value := os.environ.get(name))},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "packages": versions,
    }


def input_files(recipe: Recipe, stage: str) -> Iterator[tuple[str, Path]]:
    """(name, path) of the files from outside that a stage may read."""
    paths: list[Path] = []
    if stage in ("collect", "tokenize", "evaluate") and not recipe.hub.adapter:
        paths = sorted(Path(recipe.data).glob("*.jsonl.gz"))
    elif stage == "collect":
        paths = [Path(recipe.hub.path)]
    elif stage == "synthesize":
        paths = [Path(entry.rpartition("=")[2]) for entry in recipe.synthesize.evaluation]
        paths.append(Path(recipe.synthesize.seeds))
    elif stage == "sample" and recipe.sampler.kind == "recorded":
        paths = [Path(recipe.sampler.path)]
    yield from ((path.name, path) for path in paths if path.is_file())


def write_readme(recipe: Recipe, run: Run) -> None:
    """Write `README.md`: what was done, and which file holds what."""
    again = f"`plaudit-train STAGE {run.folder.name}` runs a stage again from this folder."
    lines = [f"# Run of {recipe.name}", "", again, ""]
    lines += ["| stage | result | wall s | CPU s |", "|---|---|---:|---:|"]
    for name in recipe.stages:
        record = run.record(name)
        if record is not None:
            result = ", ".join(f"{key} {value}" for key, value in record["summary"].items())
            lines.append(f"| {name} | {result} | {record['wall_s']} | {record['cpu_s']} |")
    lines += ["", "| file | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in FILES.items() if (run.folder / name).exists()]
    write_text(run.path("README.md"), "\n".join(lines) + "\n")


def _update(path: Path, stage: str, value: Mapping[str, Any]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps({**known, stage: value}, indent=1) + "\n")
