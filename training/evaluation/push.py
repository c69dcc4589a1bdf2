"""`plaudit-train push SOURCE --to hub:ORG/NAME | FOLDER`: a model or its pairs, with a card, at the hub or in a folder.

| SOURCE | what is pushed |
|---|---|
| a run after `fit` | the checkpoint, checked against its golden set, with its report where there is one |
| a run with `--what pairs` | the pairs of the training and the validation fold, as messages |
| a checkpoint folder | the folder as it is; a front matter is added to a card that has none |
| a JSONL file | pairs with `prompt`, `chosen` and `rejected`, as split `train` |

- A folder is written whole or not at all, and never over files of something else.
- The hub is asked by huggingface_hub, with the token of its own login. The hub checks the front matter first, then all
  files go up in one commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks, UsageError
from training.data.export import FORMATS
from training.evaluation.cards import HUB_ID, model_data, pairs_data, sources_in, split_card, with_front_matter
from training.evaluation.publish import publish, training_sources
from training.pipeline.config import CardConfig, Recipe, read_recipe
from training.pipeline.files import read_jsonl, write_text
from training.pipeline.records import read_problems
from training.pipeline.run import Run

HUB = "hub:"
PAIR_KEYS = ("prompt", "chosen", "rejected")
FOLDS = ("train", "validation")


def push_command(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UsageError: a source that is none of the kinds, a target that cannot be one, or files in the way.
        HostLacks: no login, or no way to the hub.
    """
    parser = argparse.ArgumentParser(
        prog="plaudit-train push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a run folder, a checkpoint folder, or a JSONL file of pairs")
    parser.add_argument("--to", required=True, help="hub:ORG/NAME, or a folder that does not exist or is empty")
    parser.add_argument("--what", choices=("model", "pairs"), default="model", help="what of a run")
    parser.add_argument("--license", default="", help="the licence's id at the hub, over the recipe's card.license")
    parser.add_argument("--private", action="store_true", help="a repository of the hub that others do not see")
    options = parser.parse_args(arguments)
    target = checked_target(options.to)
    with tempfile.TemporaryDirectory(prefix="plaudit-push-") as scratch:
        staged = Path(scratch) / "staged"
        staged.mkdir()
        kind = stage_files(options.source, options.what, options.license, staged)
        if isinstance(target, Path):
            place = copied(staged, target)
        else:
            place = uploaded(staged, target, kind, private=options.private)
        files = len(list(staged.iterdir()))
    print(json.dumps({"pushed": kind, "files": files, "to": place}))


def checked_target(text: str) -> str | Path:
    """A repository's id, or a folder. Raises `UsageError` for an id that is none, and for a folder with files."""
    if text.startswith(HUB):
        name = text.removeprefix(HUB)
        if not HUB_ID.match(name):
            raise UsageError(f"--to {text}: a repository is hub:ORG/NAME")
        return name
    folder = Path(text)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--to {text}: it exists and is not an empty folder: name another, or remove it")
    return folder


def stage_files(source: Path, what: str, license_id: str, staged: Path) -> str:
    """Write what is pushed, and its card, to `staged`; answers `model` or `dataset`. Raises `UsageError`."""
    if source.is_file():
        _stage_file(source, license_id, staged)
        return "dataset"
    if (source / "recipe.json").is_file():
        recipe, run = _recipe_of(source, license_id), Run(source, quiet=True)
        if what == "pairs":
            _stage_pairs(recipe, run, staged)
            return "dataset"
        publish(dataclasses.replace(recipe, publish=str(staged)), run)
        return "model"
    if (source / "config.json").is_file() and what == "model":
        _stage_checkpoint(source, license_id, staged)
        return "model"
    raise UsageError(
        f"{source} is no run folder (recipe.json), no checkpoint (config.json) and no file of pairs"
        if what == "model"
        else f"{source} is no run folder: only a run has pairs to push beside a file of them"
    )


def _recipe_of(run: Path, license_id: str) -> Recipe:
    recipe = read_recipe(run / "recipe.json")
    return _licensed(recipe, license_id)


def _licensed(recipe: Recipe, license_id: str) -> Recipe:
    card: CardConfig = dataclasses.replace(recipe.card, license=license_id or recipe.card.license)
    return dataclasses.replace(recipe, card=card)


def _stage_pairs(recipe: Recipe, run: Run, staged: Path) -> None:
    problems = read_problems(run.path("problems.jsonl"))
    sizes: dict[str, int] = {}
    for fold in FOLDS:
        own = {name: problem for name, problem in problems.items() if problem.fold == fold}
        rows = FORMATS["trl"](run.folder, own, None, staged / f"{fold}.jsonl")
        if rows:
            sizes[fold] = rows
        else:
            (staged / f"{fold}.jsonl").unlink(missing_ok=True)
    if not sizes:
        raise UsageError(f"{run.folder}: no pair of the training or the validation fold: run plaudit-train pair first")
    learnt = training_sources(run)
    table = [f"| {source} | {license_} | {count} |" for (source, license_), count in sorted(learnt.items())]
    write_text(staged / "README.md", _pairs_card(recipe, sizes, [name for name, _ in learnt], table))


def _stage_file(source: Path, license_id: str, staged: Path) -> None:
    count = 0
    for count, row in enumerate(read_jsonl(source), start=1):
        missing = [key for key in PAIR_KEYS if key not in row]
        if missing:
            raise UsageError(f"{source}:{count}: no {missing[0]!r}; a pair has {', '.join(PAIR_KEYS)}")
    if not count:
        raise UsageError(f"{source}: no pair in it")
    shutil.copyfile(source, staged / "train.jsonl")
    recipe = _licensed(Recipe(name=source.stem), license_id)
    write_text(staged / "README.md", _pairs_card(recipe, {"train": count}, [], []))


def _pairs_card(recipe: Recipe, sizes: dict[str, int], sources: list[str], table: list[str]) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in sizes.items())
    rule = recipe.pair
    text = f"""# {recipe.name}: pairs of programs

Which of two programs for one problem is better: {counts}. `prompt`, `chosen` and `rejected`, as TRL's `RewardTrainer`
and `DPOTrainer` read them.
"""
    if table:
        text += f"""
Labels are shares of tests passed, from running them in a sandbox: chosen at least {rule.min_chosen:g}, a gap of at
least {rule.min_gap:g}, rejected {"above zero" if rule.rejected_above_zero else "zero or more"}.

## Learnt from

| source | licence | programs |
|---|---|---|
{chr(10).join(table)}
"""
    return with_front_matter(pairs_data(recipe, sizes, sources), text)


def _stage_checkpoint(source: Path, license_id: str, staged: Path) -> None:
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, staged / path.name)
    card = staged / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {source.name}\n\nA reward model for code.\n"
    head, body = split_card(text)
    if head and not license_id:
        return
    if head:
        raise UsageError(f"{source}/README.md has a front matter with a licence already: change it there")
    report = staged / "report.json"
    numbers = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None
    recipe = _licensed(Recipe(name=source.name), license_id)
    write_text(card, with_front_matter(model_data(recipe, numbers, sources_in(body)), body))


def copied(staged: Path, folder: Path) -> str:
    """The files in `folder`, which appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(staged, scratch)
    if folder.exists():
        folder.rmdir()  # empty, as was checked
    scratch.rename(folder)
    return str(folder)


def uploaded(staged: Path, name: str, kind: str, *, private: bool) -> str:
    """The files in one commit of the hub's repository, which is made if there is none. Answers its address."""
    from huggingface_hub import DatasetCard, HfApi, ModelCard
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    card: Any = (ModelCard if kind == "model" else DatasetCard).load(staged / "README.md")
    api = HfApi()
    try:
        try:
            card.validate(repo_type=kind)
        except ValueError as error:
            raise UsageError(f"the hub does not take the card: {error}") from error
        api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, repo_type=kind, folder_path=str(staged), commit_message=f"plaudit-train push: {kind}"
        )
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise HostLacks(
            f"--to {HUB}{name}: the hub does not take it ({error}); `hf auth login` gives this host a token that may "
            f"write to {name.partition('/')[0]}"
        ) from error
    except OSError as error:
        raise HostLacks(f"--to {HUB}{name}: the hub does not answer ({error})") from error
    return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
