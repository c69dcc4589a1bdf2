"""Sources of completions: an OpenAI-compatible server, a model in this process, or a file of recorded completions."""

from __future__ import annotations

from pathlib import Path

from plaudit.errors import UsageError
from training.generation.sources.base import CompletionSource
from training.pipeline import config


def open_source(settings: config.SourceConfig) -> CompletionSource:
    """The source that a section of the recipe describes. Raises `UsageError` for an unknown `kind`."""
    if settings.kind == "openai":
        from training.generation.sources.openai import OpenAISource

        key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else None
        return OpenAISource(settings, key)
    if settings.kind == "hf":
        from training.generation.sources.local import LocalSource

        return LocalSource(settings)
    if settings.kind == "recorded":
        from training.generation.sources.recorded import RecordedSource

        return RecordedSource(settings)
    raise UsageError(f"source.kind must be openai, hf or recorded, not {settings.kind!r}")
