"""Many completions, each generated once: a reply is on disk before the next is waited for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from training.generation.sources import open_source
from training.generation.sources.base import CompletionReply, CompletionRequest, TokenUsage, source_identity
from training.pipeline import config
from training.pipeline.digests import content_key
from training.pipeline.journal import Journal
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run


def complete_all(
    run: Run, name: str, settings: config.SourceConfig, requests: Sequence[CompletionRequest], usage: TokenUsage
) -> dict[str, CompletionReply]:
    """A reply for every request by its key: from the journal `name` of this run, or from the source.

    A reply in the journal counts only for the request that it answered; a request that has changed is sent again.
    """
    names = {r.key: content_key(source_identity(settings), dataclasses.astuple(r)) for r in requests}
    with Journal(run.path(name)) as journal:
        replies = {key: _reply_of(row) for key, row in journal.rows.items() if names.get(key) == row["ask"]}
        for reply in replies.values():
            usage.add(reply)
        run.say(f"{name}: {len(requests)} requests, {len(replies)} answered before")
        to_send = [request for request in requests if request.key not in replies]
        if not to_send:
            return replies
        progress = StageProgress(run, name, len(requests))
        with open_source(settings) as source:
            for reply in source.replies(to_send):
                journal.add(
                    {
                        "key": reply.key,
                        "ask": names[reply.key],
                        "texts": reply.texts,
                        "endings": reply.endings,
                        "tokens": (reply.prompt_tokens, reply.completion_tokens),
                    }
                )
                replies[reply.key] = reply
                usage.add(reply)
                progress.at(len(replies), usage.progress_text(settings))
    return replies


def _reply_of(row: dict[str, Any]) -> CompletionReply:
    return CompletionReply(row["key"], tuple(row["texts"]), tuple(row["endings"]), *row["tokens"])
