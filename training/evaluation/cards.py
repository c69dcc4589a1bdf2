"""Cards as the Hugging Face hub reads them: a front matter in YAML, and below it what `publish` wrote.

- `model_data` and `pairs_data` make the front matter by huggingface_hub's own classes, so that what they reject is
  rejected here and not after an upload.
- The front matter names what is at the hub: a base by its id, data sets by theirs. A path of this machine is left out.
- The numbers of the model index are the report's, each with the data that it was measured on. Without a report there
  is no model index.
- Without a licence in the recipe (`card.license`) the card says `other`: a fitted base keeps its own licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.pipeline.config import Recipe

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
LICENSE = re.compile(r"^[a-z0-9][a-z0-9.-]*$")
TAGS = ("reward-model", "code", "best-of-n", "plaudit")
AT_THE_HUB = {  # where repositories of the public data are as data sets
    "openai/human-eval": "openai/openai_humaneval",
    "google-research/mbpp": "google-research-datasets/mbpp",
}
SOURCE_ROW = re.compile(r"^\| ([^|]+?) \| ([^|]+?) \| (\d+) \|$", re.MULTILINE)


def with_front_matter(data: Any, text: str) -> str:
    """The card: `data` of huggingface_hub's `ModelCardData` or `DatasetCardData` before a text without front matter."""
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{text.lstrip()}"


def split_card(card: str) -> tuple[str, str]:
    """The front matter, without its marks, and the text below; the first is empty where there is none."""
    if not card.startswith("---\n"):
        return "", card
    head, mark, text = card.removeprefix("---\n").partition("\n---\n")
    return (head, text.lstrip("\n")) if mark else ("", card)


def model_data(recipe: Recipe, report: Mapping[str, Any] | None, sources: Iterable[str]) -> Any:
    """The front matter of a reward model.

    Args:
        recipe: its `card`, `fit.base` and `hub` sections.
        report: `report.json`, where there is one.
        sources: names of what was learnt from, as the card lists them.

    Raises:
        UsageError: a licence that the hub does not take.
    """
    from huggingface_hub import ModelCardData

    base = recipe.fit.base
    results = list(eval_results(report)) if report is not None else []
    return ModelCardData(
        license=license_of(recipe),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[*TAGS, *recipe.card.tags],
        base_model=base if HUB_ID.match(base) and not Path(base).is_dir() else None,
        datasets=datasets_of(recipe, sources) or None,
        metrics=["accuracy", "roc_auc"] if results else None,
        model_name=recipe.name,
        eval_results=results or None,
    )


def pairs_data(recipe: Recipe, sizes: Mapping[str, int], sources: Iterable[str]) -> Any:
    """The front matter of a data set of pairs, whose file of each split is `SPLIT.jsonl`.

    Raises `UsageError` for a licence that the hub does not take.
    """
    from huggingface_hub import DatasetCardData

    files = [{"split": split, "path": f"{split}.jsonl"} for split in sizes]
    return DatasetCardData(
        license=license_of(recipe),
        task_categories=["text-classification", "reinforcement-learning"],
        tags=["preference", *TAGS, *recipe.card.tags],
        size_categories=[size_category(sum(sizes.values()))],
        source_datasets=datasets_of(recipe, sources) or None,
        pretty_name=f"{recipe.name}: pairs of programs",
        configs=[{"config_name": "default", "data_files": files}],
    )


def license_of(recipe: Recipe) -> str:
    """The licence's id at the hub. Raises `UsageError` for what cannot be one."""
    name = recipe.card.license or "other"
    if not LICENSE.match(name):
        raise UsageError(f"card.license is {name!r}: the hub takes ids in lower case, as apache-2.0, mit or other")
    return name


def datasets_of(recipe: Recipe, sources: Iterable[str]) -> list[str]:
    """Data sets at the hub that the checkpoint was learnt from."""
    own = [recipe.hub.path] if HUB_ID.match(recipe.hub.path) and not Path(recipe.hub.path).exists() else []
    named = [AT_THE_HUB[source] for source in sources if source in AT_THE_HUB]
    return list(dict.fromkeys([*own, *named]))


def eval_results(report: Mapping[str, Any]) -> Iterable[Any]:
    """The report's pair accuracy, AUC and best-of-N at the largest N, as the model index has results."""
    from huggingface_hub import EvalResult

    name = report.get("set", "public")
    where = {
        "task_type": "text-classification",
        "task_name": "ranking sampled programs",
        "dataset_type": name,
        "dataset_name": f"{name}: {report['problems']} held-out problems, {report['samples']} samples",
    }
    for metric, label, key in (("accuracy", "pair accuracy", "pair_accuracy"), ("roc_auc", "AUC in a problem", "auc")):
        value = report["discrimination"][key]["value"]
        if value is not None:
            yield EvalResult(**where, metric_type=metric, metric_name=label, metric_value=round(value, 4))
    for row in report["best_of_n"]:
        if row["ranker"] != "reward model" or not row["points"]:
            continue
        last = row["points"][-1]
        label = f"problems solved by best of {last['n']}"
        yield EvalResult(**where, metric_type="pass@1", metric_name=label, metric_value=round(last["value"], 4))


def sources_in(text: str) -> list[str]:
    """The sources that a card's table of what was learnt from names."""
    _, _, table = text.partition("## Learnt from")
    return [match[1] for match in SOURCE_ROW.finditer(table)]


def size_category(rows: int) -> str:
    """The hub's name of a data set's size."""
    bounds = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
    return next((name for name, most in bounds if rows < most), "1M<n<10M")
