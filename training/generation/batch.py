"""Many completions, each generated once: a reply is on disk before the next is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from training.generation.sources import open_source
from training.generation.sources.base import CompletionReply, CompletionRequest, TokenUsage, source_identity
from training.generation.sources.on_ray import RaySource
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.engines import source_engine
from training.pipeline.journal import Journal
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run


class RecordedReplies(Mapping[str, CompletionReply]):
    """The replies of a journal by their request's key, read when they are asked for."""

    def __init__(self, journal: Journal, requests: Mapping[str, str]) -> None:
        self._journal, self._requests = journal, requests

    def __getitem__(self, key: str) -> CompletionReply:
        row = self._journal[key]
        if self._requests[key] != row["ask"]:
            raise KeyError(key)
        return _reply_of(row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)


def complete_all(
    recipe: Recipe,
    run: Run,
    name: str,
    settings: config.SourceConfig,
    requests: Iterable[CompletionRequest],
    usage: TokenUsage,
    *,
    total: int = 0,
) -> Mapping[str, CompletionReply]:
    """A reply for every request by its key: from the journal `name` of this run, or from the source.

    A reply in the journal counts only for the request that it answered; a request that has changed is sent again.
    Requests are taken as the source has room for them, and replies stay on disk.

    Args:
        recipe: says whether this process asks the source, or executors of a cluster do.
        run: holds the journal.
        name: of the journal.
        settings: the source.
        requests: what to ask; of two with one key the first is asked.
        usage: counts the tokens.
        total: how many requests there are, for the progress; 0: not known.
    """
    names: dict[str, str] = {}
    num_before = 0

    def to_send(journal: Journal) -> Iterator[CompletionRequest]:
        nonlocal num_before
        for request in requests:
            if request.key in names:
                continue
            names[request.key] = content_key(source_identity(settings), request.identity)
            row = journal.get(request.key)
            if row is None or row["ask"] != names[request.key]:
                yield request
            else:
                usage.add(_reply_of(row))
                num_before += 1

    with Journal(run.path(name)) as journal:
        left = to_send(journal)
        first = next(left, None)
        if first is not None:
            progress = StageProgress(run, name, total)
            opened = RaySource(settings, recipe.ray) if source_engine(recipe, settings).name == "ray" else None
            with opened or open_source(settings) as source:
                for num_done, reply in enumerate(source.replies(chain([first], left)), start=1):
                    journal.add(
                        {
                            "key": reply.key,
                            "ask": names[reply.key],
                            "texts": reply.texts,
                            "endings": reply.endings,
                            "tokens": (reply.prompt_tokens, reply.completion_tokens),
                        }
                    )
                    usage.add(reply)
                    progress.at(num_before + num_done, usage.progress_text(settings))
    run.say(f"{name}: {len(names)} requests, {num_before} answered before")
    return RecordedReplies(journal, names)


def _reply_of(row: dict[str, Any]) -> CompletionReply:
    return CompletionReply(row["key"], tuple(row["texts"]), tuple(row["endings"]), *row["tokens"])
