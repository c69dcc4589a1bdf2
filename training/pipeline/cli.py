"""`plaudit-train STAGE RECIPE.toml [--run DIR] [--field value ...]`: one stage, or `all` of them, in one run folder.

- A run folder can be given instead of its recipe: `plaudit-train publish runs/mini`.
- `plaudit-train status runs/mini` says how far a run is.
- Exit codes: 0 success, 1 failure, 2 wrong usage, 3 this host lacks something that the message names.

This module imports no torch; a stage imports what it needs when it runs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plaudit.errors import EXIT_FAILED, EXIT_HOST, EXIT_OK, PlauditError, UsageError, exit_code
from training.pipeline.config import Recipe, field_lines, read_recipe
from training.pipeline.needs import check_needs
from training.pipeline.run import Run
from training.pipeline.stages import STAGES, run_stage
from training.pipeline.status import status_lines

# Commands with arguments of their own: where the function is. One that answers False found a difference.
COMMANDS = {
    "audit": ("training.data.audit", "audit_command"),
    "seeds": ("training.synthesis.seeds", "seeds_command"),
    "export": ("training.data.export", "export_command"),
    "sheet": ("training.synthesis.sheet", "sheet_command"),
    "table": ("training.evaluation.tables", "table_command"),
    "diff": ("training.pipeline.compare", "diff_command"),
    "push": ("training.evaluation.push", "push_command"),
    "cost": ("training.rewardranker.cost", "cost_command"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return EXIT_OK
    stage, rest = arguments[0], arguments[1:]
    try:
        if stage in COMMANDS:
            module, function = COMMANDS[stage]
            same = getattr(importlib.import_module(module), function)(rest)
            return EXIT_FAILED if same is False else EXIT_OK
        if stage not in STAGES and stage not in ("all", "status"):
            raise UsageError(f"unknown stage {stage!r}: use one of {', '.join([*STAGES, 'all', 'status', *COMMANDS])}")
        if "-h" in rest or "--help" in rest:
            print(stage_usage(stage))
            return EXIT_OK
        if not rest or rest[0].startswith("-"):
            raise UsageError(f"plaudit-train {stage} needs a recipe file or a run folder")
        folder, flags = _run_folder(rest[1:])
        rank = int(os.environ.get("RANK", "0"))
        recipe, run = _open(Path(rest[0]), folder, flags, quiet=rank > 0)
        if stage == "status":
            print("\n".join(status_lines(recipe, run)))
            return EXIT_OK
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (
            stage == "fit" and recipe.fit.base and recipe.fit.loop == "pairs"
        ):
            raise UsageError("only `fit` with fit.base and fit.loop = pairs runs as several processes")
        names = _stages(recipe) if stage == "all" else (stage,)
        if not rank:
            check_needs(recipe, [name for name in names if run.record(name) is None], run.folder)
        for name in names:
            run_stage(name, recipe, run, rank)
    except PlauditError as error:
        print(f"plaudit-train: {error}", file=sys.stderr)
        return exit_code(error)
    except ModuleNotFoundError as error:
        print(f"plaudit-train: {error}: pip install 'plaudit-server[train]'", file=sys.stderr)
        return EXIT_HOST
    return EXIT_OK


def _open(path: Path, folder: Path | None, flags: list[str], *, quiet: bool) -> tuple[Recipe, Run]:
    """The recipe and run folder that the arguments name. Raises `UsageError` for a folder without a recipe."""
    if path.is_dir():
        if not (path / "recipe.json").is_file():
            raise UsageError(f"{path} is not a run folder: it has no recipe.json")
        return read_recipe(path / "recipe.json", flags, os.environ), Run(folder or path, quiet=quiet)
    recipe = read_recipe(path, flags, os.environ)
    return recipe, Run(folder or Path("runs") / recipe.name, quiet=quiet)


def _stages(recipe: Recipe) -> tuple[str, ...]:
    if unknown := [name for name in recipe.stages if name not in STAGES]:
        raise UsageError(f"the recipe's stages: unknown {', '.join(unknown)}; use {', '.join(STAGES)}")
    return recipe.stages


def usage() -> str:
    """Help of the command."""
    stages = "\n".join(f"  {name:<10} {stage.help}" for name, stage in STAGES.items())
    return (
        "usage: plaudit-train STAGE RECIPE.toml [--run DIR] [--field value ...]\n"
        "       plaudit-train STAGE RUN          the recipe that the run folder holds\n"
        "       plaudit-train status RUN         how far a run is\n"
        "       plaudit-train audit FILE.jsonl --out FOLDER   what test suites are worth, before a run\n"
        "       plaudit-train seeds FORM FILE --out FILE      seed programs for synthesize, from code data\n"
        "       plaudit-train export RUN FORMAT --out FILE    a trainer's own file of pairs or problems\n"
        "       plaudit-train sheet RUN [--read FILE]         tests of a run to check by hand, and how many are right\n"
        "       plaudit-train table RUN... --out FOLDER       the papers' tables, from several runs' reports\n"
        "       plaudit-train diff RUN RUN                    where two runs differ (exit code 1 if they do)\n"
        "       plaudit-train push RUN --to hub:ORG/NAME      a model or its pairs, with a card (or --to FOLDER)\n"
        "       plaudit-train cost RUN                        what a solved problem costs, after iterate\n\n"
        f"{stages}\n  {'all':<10} the stages that the recipe names\n\n"
        "  --run DIR    the run folder (default runs/NAME); finished stages are not run again, killed ones go on\n"
        "  plaudit-train STAGE --help lists the fields of a stage"
    )


def stage_usage(name: str) -> str:
    """Help of one stage, or of all."""
    if name == "status":
        return "usage: plaudit-train status RUN\n\nhow far a run is: stages done, running, stopped and to do"
    sections = tuple(dict.fromkeys(s for stage in STAGES.values() for s in (*stage.sections, *stage.uses)))
    title = "the stages that the recipe names"
    if name != "all":
        sections, title = (*STAGES[name].sections, *STAGES[name].uses), STAGES[name].help
    lines = "\n".join(field_lines(sections))
    return f"usage: plaudit-train {name} RECIPE.toml [--run DIR] [--field value ...]\n\n{title}\n\n{lines}"


def _run_folder(flags: list[str]) -> tuple[Path | None, list[str]]:
    if "--run" not in flags:
        return None, flags
    at = flags.index("--run")
    if at + 1 >= len(flags):
        raise UsageError("--run has no value: it takes a folder")
    return Path(flags[at + 1]), flags[:at] + flags[at + 2 :]


if __name__ == "__main__":
    sys.exit(main())
