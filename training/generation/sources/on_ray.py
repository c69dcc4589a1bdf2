"""Completions over a Ray cluster: each executor opens the source on its node and answers a chunk of requests at a time.

For models in the executors' own processes (`kind = "hf"`, with `ray.gpus`), and for servers that each node reaches by
the same URL. Every executor keeps `concurrency` requests in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Self

from training.generation.sources import open_source
from training.generation.sources.base import CompletionReply, CompletionRequest
from training.pipeline import config
from training.pipeline.ray_executors import chunked, results_on_ray


class RaySource:
    """`settings` describe the source that each executor opens."""

    def __init__(self, settings: config.SourceConfig, cluster: config.RayConfig) -> None:
        self.settings, self._cluster = settings, cluster

    @property
    def name(self) -> str:
        return self.settings.model or self.settings.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Executors close their sources when the replies end."""

    def replies(self, requests: Iterable[CompletionRequest]) -> Iterator[CompletionReply]:
        in_process = self.settings.kind == "hf"
        size = 1 if in_process else max(self.settings.concurrency, self._cluster.chunk)
        gpus = self._cluster.gpus if in_process else 0.0
        chunks = chunked(requests, size)
        for replies in results_on_ray(partial(_source, self.settings), chunks, self._cluster, gpus=gpus):
            yield from replies


@contextmanager
def _source(
    settings: config.SourceConfig,
) -> Iterator[Callable[[list[CompletionRequest]], list[CompletionReply]]]:
    with open_source(settings) as source:
        yield lambda requests: list(source.replies(requests))
