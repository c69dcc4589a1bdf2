"""`plaudit-train STAGE RECIPE.toml [--run DIR] [--field value ...]`: one stage, or `all` of them, in one run folder.

A run folder stands for its recipe: `plaudit-train publish runs/mini`. `plaudit-train status runs/mini` tells how far.

This module imports no torch; a stage imports what it needs when it runs. Exit codes: 0 fine, 1 failed, 2 wrong usage,
3 this host lacks something named in the message.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plaudit.errors import EXIT_HOST, EXIT_OK, PlauditError, UsageError, exit_code
from training.pipeline.config import Recipe, field_lines, read_recipe
from training.pipeline.manifest import describe, note
from training.pipeline.run import Run, digest
from training.pipeline.status import status_lines


@dataclass(frozen=True, slots=True)
class Stage:
    """`module:function`, the recipe's sections it reads, the stages whose files it reads, and one line of help."""

    where: str
    sections: tuple[str, ...]
    after: tuple[str, ...]
    help: str


STAGES = {
    "collect": Stage(
        "training.data.collect:collect", ("split", "hub"), (), "problems and programs from the data, in folds"
    ),
    "tokenize": Stage(
        "training.reward_model.tokenizer:tokenize", ("tokenize", "split"), ("collect",), "a tokenizer, and text"
    ),
    "pretrain": Stage(
        "training.reward_model.pretrain:pretrain", ("pretrain",), ("tokenize",), "a small language model"
    ),
    "synthesize": Stage(
        "training.synthesis.synthesize:synthesize",
        ("synthesize", "writer", "oracle", "split"),
        (),
        "problems from seed programs",
    ),
    "sample": Stage(
        "training.generation.sample:sample", ("sample", "sampler"), ("collect", "synthesize"), "a model's programs"
    ),
    "mutate": Stage("training.data.mutate:mutate", ("mutate",), ("collect",), "near misses of the reference solutions"),
    "verify": Stage(
        "training.data.verify:verify", ("verify",), ("collect", "mutate", "sample"), "programs × tests, judged"
    ),
    "pair": Stage("training.data.preferences:pair", ("pair",), ("verify",), "which program is better than which"),
    "fit": Stage(
        "training.reward_model.fit:fit",
        ("fit",),
        ("collect", "pair", "pretrain"),
        "the reward model, of one's own or of the hub",
    ),
    "evaluate": Stage(
        "training.evaluation.evaluate:evaluate", ("evaluate", "pair"), ("fit",), "the report on unseen problems"
    ),
    "publish": Stage(
        "training.evaluation.publish:publish", (), ("fit", "evaluate"), "the checkpoint folder that is served"
    ),
    "iterate": Stage(
        "training.rewardranker.iterate:iterate",
        ("iterate", "ppo", "world", "pretrain", "pair", "fit", "verify", "tokenize"),
        (),
        "RewardRanker: reranker, PPO against it, mining, again",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return EXIT_OK
    stage, rest = arguments[0], arguments[1:]
    try:
        if stage not in STAGES and stage not in ("all", "status"):
            raise UsageError(f"unknown stage {stage!r}; stages: {', '.join(STAGES)}, all; or status")
        if "-h" in rest or "--help" in rest:
            print(stage_usage(stage))
            return EXIT_OK
        if not rest or rest[0].startswith("-"):
            raise UsageError(f"plaudit-train {stage} needs a recipe file")
        folder, flags = _run_folder(rest[1:])
        rank = int(os.environ.get("RANK", "0"))
        recipe, run = _opened(Path(rest[0]), folder, flags, quiet=rank > 0)
        if stage == "status":
            print("\n".join(status_lines(recipe, run)))
            return EXIT_OK
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (
            stage == "fit" and recipe.fit.base and recipe.fit.loop == "pairs"
        ):
            raise UsageError("of all stages only `fit` with a base, by fit.loop pairs, runs as several processes")
        for name in _stages(recipe) if stage == "all" else (stage,):
            run_stage(name, recipe, run, rank)
    except PlauditError as error:
        print(f"plaudit-train: {error}", file=sys.stderr)
        return exit_code(error)
    except ModuleNotFoundError as error:
        print(f"plaudit-train: {error}: install plaudit[train]", file=sys.stderr)
        return EXIT_HOST
    return EXIT_OK


def run_stage(name: str, recipe: Recipe, run: Run, rank: int = 0) -> dict[str, object]:
    """Run one stage unless it has finished with this recipe before; its summary, also as a line on stdout.

    Of several processes that `accelerate launch` started, all run the stage, and rank 0 alone keeps the run's books.
    """
    stage = STAGES[name]
    before = {}
    for other in (other for other in stage.after if other in recipe.stages):
        record = run.record(other)
        if record is None:
            raise UsageError(f"{name} needs {other} first: plaudit-train {other}")
        before[other] = record["key"]
    sections = {section: dataclasses.asdict(getattr(recipe, section)) for section in stage.sections}
    target = [recipe.publish] if name == "publish" else []
    key = digest(name, recipe.name, recipe.seed, sections, before, *target)
    record = run.record(name)
    done_before = record is not None and record["key"] == key
    if rank:
        return {} if done_before else _function(stage)(recipe, run)
    if record is not None and done_before:
        print(json.dumps({"stage": name, "done_before": True, **record["summary"]}), flush=True)
        return dict(record["summary"])
    run.begin(name)
    note(recipe, run, name)
    wall, cpu = time.monotonic(), _cpu_s()
    summary = _function(stage)(recipe, run)
    wall, cpu = time.monotonic() - wall, _cpu_s() - cpu
    if summary.get("complete", True):
        run.finish(name, key, summary, wall, cpu)
    else:
        run.progress(name, 0.0, 0.0, 0.0, None, f"part {recipe.shard} is done")
    describe(recipe, run)
    print(json.dumps({"stage": name, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), **summary}), flush=True)
    return summary


def _function(stage: Stage) -> Callable[[Recipe, Run], dict[str, object]]:
    module, _, name = stage.where.partition(":")
    found: Callable[[Recipe, Run], dict[str, object]] = getattr(importlib.import_module(module), name)
    return found


def _opened(path: Path, folder: Path | None, flags: list[str], *, quiet: bool) -> tuple[Recipe, Run]:
    """The recipe and run folder that the arguments name. Raises `UsageError` for a folder in which nothing has run."""
    if path.is_dir():
        if not (path / "recipe.json").is_file():
            raise UsageError(f"{path} is no run folder: it has no recipe.json")
        return read_recipe(path / "recipe.json", flags, os.environ), Run(folder or path, quiet=quiet)
    recipe = read_recipe(path, flags, os.environ)
    return recipe, Run(folder or Path("runs") / recipe.name, quiet=quiet)


def _stages(recipe: Recipe) -> tuple[str, ...]:
    if unknown := [name for name in recipe.stages if name not in STAGES]:
        raise UsageError(f"stages: unknown {', '.join(unknown)}; there are {', '.join(STAGES)}")
    return recipe.stages


def usage() -> str:
    """Help of the command."""
    stages = "\n".join(f"  {name:<10} {stage.help}" for name, stage in STAGES.items())
    return (
        "usage: plaudit-train STAGE RECIPE.toml [--run DIR] [--field value ...]\n"
        "       plaudit-train STAGE RUN          the recipe that the run folder holds\n"
        "       plaudit-train status RUN         how far a run is\n\n"
        f"{stages}\n  {'all':<10} the stages that the recipe names\n\n"
        "  --run DIR    the run folder (default runs/NAME); finished stages are not run again, killed ones go on\n"
        "  plaudit-train STAGE --help lists the fields of a stage"
    )


def stage_usage(name: str) -> str:
    """Help of one stage, or of all."""
    if name == "status":
        return "usage: plaudit-train status RUN\n\nhow far a run is: stages done, running, stopped and to do"
    sections = tuple(dict.fromkeys(s for stage in STAGES.values() for s in stage.sections))
    title = "the stages that the recipe names"
    if name != "all":
        sections, title = STAGES[name].sections, STAGES[name].help
    lines = "\n".join(field_lines(sections))
    return f"usage: plaudit-train {name} RECIPE.toml [--run DIR] [--field value ...]\n\n{title}\n\n{lines}"


def _run_folder(flags: list[str]) -> tuple[Path | None, list[str]]:
    if "--run" not in flags:
        return None, flags
    at = flags.index("--run")
    if at + 1 >= len(flags):
        raise UsageError("--run has no value")
    return Path(flags[at + 1]), flags[:at] + flags[at + 2 :]


def _cpu_s() -> float:
    """CPU seconds of this process and of its finished children."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    sys.exit(main())
