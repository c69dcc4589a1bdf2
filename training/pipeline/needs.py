"""What the stages of a recipe need of this host, looked at before the first of them runs.

Packages, files, folders, the sandbox or the service that judges, the servers that generate: everything that is missing
is said at once, in the first seconds, and not one thing an hour.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from plaudit.errors import HostLacks
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.engines import judging_engine, scoring_engine, source_engine
from training.pipeline.trackers import missing_packages

CHECK_S = 5.0  # for a server to answer
FREE_BYTES = 1 << 30  # of the run folder's disk
LANGUAGE_MODEL = ("torch", "transformers", "tokenizers", "safetensors")
PUBLIC = ("problems.python.jsonl.gz", "samples.python.jsonl.gz", "labels.jsonl.gz")
EXTRA = "pip install 'plaudit-server[train]'"


def check_needs(recipe: Recipe, stages: Sequence[str], folder: Path) -> None:
    """Raise `HostLacks` with everything that these stages need and this host does not have.

    Args:
        recipe: of the run.
        stages: that are going to run.
        folder: of the run.
    """
    lacks = list(dict.fromkeys(lack for stage in stages for lack in NEEDS.get(stage, _nothing)(recipe)))
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if shutil.disk_usage(existing).free < FREE_BYTES:
        lacks.append(f"{existing}: less than 1 GiB is free on its disk")
    if lacks:
        raise HostLacks("the recipe cannot run here:\n" + "\n".join(f"  - {lack}" for lack in lacks))


def _nothing(recipe: Recipe) -> Iterator[str]:
    yield from ()


def _packages(*names: str) -> Iterator[str]:
    for name in names:
        if importlib.util.find_spec(name) is None:
            yield f"the package {name} is not installed: {EXTRA}"


def _data(recipe: Recipe, *names: str) -> Iterator[str]:
    for name in names:
        if not (Path(recipe.data) / name).is_file():
            yield f"data: no {name} in {recipe.data}: set PLAUDIT_DATA or --data to the public data folder"


def _collect(recipe: Recipe) -> Iterator[str]:
    if not recipe.hub.adapter:
        yield from _data(recipe, *PUBLIC)
        return
    yield from _packages("datasets")
    if recipe.hub.path.endswith((".jsonl", ".json", ".parquet", ".gz")) and not Path(recipe.hub.path).is_file():
        yield f"hub.path: no file {recipe.hub.path}"
    yield from _evaluation_sets("hub.evaluation", recipe.hub.evaluation)


def _evaluation_sets(field: str, entries: Sequence[str]) -> Iterator[str]:
    for entry in entries:
        path = entry.partition("=")[2] or entry
        if path.endswith((".jsonl", ".json", ".parquet", ".gz")) and not Path(path).is_file():
            yield f"{field}: no file {path}"


def _tokenize(recipe: Recipe) -> Iterator[str]:
    yield from _packages("tokenizers", "transformers")
    yield from _data(recipe, "corpus.python.jsonl.gz")


def _source(name: str, source: config.SourceConfig) -> Iterator[str]:
    if source.key_file and not Path(source.key_file).is_file():
        yield f"{name}.key_file: no file {source.key_file}"
    if source.kind == "recorded" and not Path(source.path).is_file():
        yield f"{name}.path: no file {source.path!r} of recorded completions"
    if source.kind == "hf":
        yield from _packages(*LANGUAGE_MODEL)
    if source.kind == "openai":
        yield from _answers(f"{name}.url", source.url)


def _answers(field: str, url: str) -> Iterator[str]:
    """A server that answers anything at all is there; its errors are said when it is asked something."""
    import httpx

    try:
        httpx.get(url, timeout=CHECK_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield f"{field}: nothing answers at {url} ({type(error).__name__})"


def _synthesize(recipe: Recipe) -> Iterator[str]:
    yield from _packages("json_repair")
    if not Path(recipe.synthesize.seeds).is_file():
        yield f"synthesize.seeds: no file {recipe.synthesize.seeds!r}; plaudit-train seeds makes one from code data"
    yield from _evaluation_sets("synthesize.evaluation", recipe.synthesize.evaluation)
    for source in (recipe.writer, recipe.oracle):
        source_engine(recipe, source)  # says what does not go together
    yield from _source("writer", recipe.writer)
    yield from _source("oracle", recipe.oracle)
    yield from _verify(recipe)


def _sample(recipe: Recipe) -> Iterator[str]:
    source_engine(recipe, recipe.sampler)  # says what does not go together
    yield from _ray(recipe)
    yield from _source("sampler", recipe.sampler)


def _ray(recipe: Recipe) -> Iterator[str]:
    if recipe.engine == "ray" and importlib.util.find_spec("ray") is None:
        yield "the package ray is not installed: pip install 'plaudit-server[ray]'"


def _pair(recipe: Recipe) -> Iterator[str]:
    yield from _ray(recipe)


def _verify(recipe: Recipe) -> Iterator[str]:
    if recipe.verify.key_file and not Path(recipe.verify.key_file).is_file():
        yield f"verify.key_file: no file {recipe.verify.key_file}"
    engine = judging_engine(recipe)
    if engine.name == "service":
        yield from _answers("verify.service", f"{engine.url.rstrip('/')}/health")
        return
    if engine.name == "ray":
        yield from _ray(recipe)
        return  # the nodes say themselves what they lack
    from sandbox.capabilities import HostCapabilities

    host = HostCapabilities.probe()
    if host.level != "strong":
        lacking = "; ".join(host.missing)
        yield f"a sandbox of level strong: {lacking}; or name a running service in verify.service"


def _fit(recipe: Recipe) -> Iterator[str]:
    yield from _packages(*LANGUAGE_MODEL)
    if recipe.fit.base and recipe.fit.loop == "pairs":
        yield from _packages("trl", "datasets", "accelerate")
    if recipe.fit.lora_rank:
        yield from _packages("peft")
    yield from missing_packages("fit.trackers", recipe.fit.trackers)


def _evaluate(recipe: Recipe) -> Iterator[str]:
    yield from _packages(*LANGUAGE_MODEL, "matplotlib")
    engine = scoring_engine(recipe)
    if engine.name == "service":
        yield from _answers("evaluate.service", f"{engine.url.rstrip('/')}/health")
    yield from _ray(recipe)


def _language_model(recipe: Recipe) -> Iterator[str]:
    yield from _packages(*LANGUAGE_MODEL)


def _iterate(recipe: Recipe) -> Iterator[str]:
    yield from _packages(*LANGUAGE_MODEL)
    yield from missing_packages("fit.trackers", recipe.fit.trackers)
    yield from missing_packages("ppo.trackers", recipe.ppo.trackers)
    yield from _evaluation_sets("iterate.sft", recipe.iterate.sft)
    yield from _verify(recipe)


NEEDS: dict[str, Callable[[Recipe], Iterator[str]]] = {
    "collect": _collect,
    "tokenize": _tokenize,
    "pretrain": _language_model,
    "synthesize": _synthesize,
    "sample": _sample,
    "verify": _verify,
    "pair": _pair,
    "fit": _fit,
    "evaluate": _evaluate,
    "iterate": _iterate,
}
