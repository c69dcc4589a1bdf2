"""Shards of a run: each problem belongs to one, by a hash of its name, on every machine and in every stage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from plaudit.errors import UsageError
from training.pipeline.config import Recipe
from training.pipeline.run import Run


def shard_of(task_id: str, num_shards: int) -> int:
    """The shard that a problem belongs to."""
    return int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:8]) % num_shards


def shards_to_run(recipe: Recipe) -> Sequence[int]:
    """All shards, or the one of `--shard`. Raises `UsageError` for a shard that does not exist."""
    num_shards = recipe.sample.shards if "sample" in recipe.stages else 1
    if not recipe.shard:
        return range(num_shards)
    number, _, total = recipe.shard.partition("/")
    if not (number.isdigit() and total == str(num_shards) and int(number) < num_shards):
        raise UsageError(
            f"shard must be one of 0/{num_shards} to {num_shards - 1}/{num_shards}, not {recipe.shard!r}: "
            f"sample.shards is {num_shards}"
        )
    return [int(number)]


def shard_path(run: Run, folder: str, number: int, recipe: Recipe) -> Path:
    """The file of a shard in this folder of the run."""
    return run.path(f"{folder}/{shard_name(number, recipe)}.jsonl")


def shard_name(number: int, recipe: Recipe) -> str:
    """How files of a shard are called, as `00003-of-00016`."""
    return f"{number:05}-of-{recipe.sample.shards:05}"
