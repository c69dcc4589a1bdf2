"""Where the work of a stage is done: `--engine local | service | ray`, one result whichever it is.

| stage | local | service | ray |
|---|---|---|---|
| verify, synthesize: programs | sandboxes of this host | `POST /execute` | a sandbox per executor |
| sample, synthesize: texts | this process asks | this process asks a server | each executor asks |
| evaluate: scores | the checkpoint in this process | `POST /score` | a checkpoint per executor |
| pair | this process | this process | a slice of problems per task |

Without an engine, programs and scores go to the services that the recipe names, and all else is local. The engine is no
part of a stage's key: a run that was begun by one is ended by another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plaudit.errors import UsageError
from training.pipeline.config import Recipe, SourceConfig


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine, and for `service` its URL."""

    name: Literal["local", "service", "ray"]
    url: str = ""


def judging_engine(recipe: Recipe) -> EngineChoice:
    """Who runs programs. Raises `UsageError` for `service` without a URL."""
    if recipe.engine in ("local", "ray"):
        return EngineChoice(recipe.engine)
    if url := recipe.verify.service or (recipe.evaluate.service if recipe.engine else ""):
        return EngineChoice("service", url)
    if recipe.engine:
        raise UsageError("verify.service: it is empty, and --engine service runs programs there; give its URL")
    return EngineChoice("local")


def scoring_engine(recipe: Recipe) -> EngineChoice:
    """Who scores for `evaluate`. Raises `UsageError` for settings that do not go together."""
    service = recipe.evaluate.service
    if recipe.engine in ("local", "ray"):
        if service:
            raise UsageError(
                f"evaluate.service names the model of a service, and --engine {recipe.engine} scores with a "
                "checkpoint: remove one of them"
            )
        return EngineChoice(recipe.engine)
    if recipe.engine and not service:
        raise UsageError("evaluate.service: it is empty, and --engine service scores there; give its URL")
    if service and recipe.evaluate.checkpoint:
        raise UsageError("evaluate.checkpoint and evaluate.service: name one of them; the service has its own models")
    return EngineChoice("service", service) if service else EngineChoice("local")


def source_engine(recipe: Recipe, source: SourceConfig) -> EngineChoice:
    """Who asks for completions. Raises `UsageError` for `service` with a source that is no server."""
    if recipe.engine == "ray":
        return EngineChoice("ray")
    if recipe.engine == "service" and source.kind != "openai":
        raise UsageError(
            f"--engine service asks a server for completions, and the source's kind is {source.kind!r}: set kind = "
            '"openai" and its url, or use another engine'
        )
    return EngineChoice("service", source.url) if recipe.engine == "service" else EngineChoice("local")


def pairing_engine(recipe: Recipe) -> EngineChoice:
    """Who makes pairs; there is nothing in it for a service."""
    return EngineChoice("ray" if recipe.engine == "ray" else "local")
