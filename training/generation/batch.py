"""Asking a source for many things once: each reply is on disk before the next is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.generation.sources import Ask, Reply, Usage, identity, open_source
from training.pipeline import config
from training.pipeline.journal import Journal
from training.pipeline.run import Progress, Run, digest


def ask_all(run: Run, name: str, settings: config.Source, asks: Sequence[Ask], usage: Usage) -> dict[str, Reply]:
    """A reply for every ask by its key: from the journal `name` of this run, or from the source.

    A reply on record counts for the ask that it answered: an ask that has changed since is asked again.
    """
    wanted = {ask.key: digest(identity(settings), ask) for ask in asks}
    with Journal(run.path(name)) as journal:
        done = {key: _read(row) for key, row in journal.rows.items() if wanted.get(key) == row["ask"]}
        for reply in done.values():
            usage.add(reply)
        run.say(f"{name}: {len(asks)} asks, {len(done)} answered before")
        left = [ask for ask in asks if ask.key not in done]
        if not left:
            return done
        progress = Progress(run, name, len(asks))
        with open_source(settings) as source:
            for reply in source.replies(left):
                journal.add(
                    {
                        "key": reply.key,
                        "ask": wanted[reply.key],
                        "texts": reply.texts,
                        "endings": reply.endings,
                        "tokens": (reply.prompt_tokens, reply.completion_tokens),
                    }
                )
                done[reply.key] = reply
                usage.add(reply)
                progress.at(len(done), usage.note(settings))
    return done


def _read(row: dict[str, Any]) -> Reply:
    return Reply(row["key"], tuple(row["texts"]), tuple(row["endings"]), *row["tokens"])
