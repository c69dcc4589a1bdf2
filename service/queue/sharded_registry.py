"""A scoring worker's view of the activations where it serves several shards: one `ModelRegistry` per shard."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from service.queue.activation import ActivationReport, ActivationRequest, ActiveRevision, ModelRegistry, ModelState
from service.queue.connections import SHARD_TIMEOUT_S, SOCKET_TIMEOUT_S, connect
from service.queue.protocol import shard_clock
from service.queue.sharded_consumer import dead_shards
from service.queue.shards import ShardAddress, served_shards
from service.settings import Settings

log = logging.getLogger("plaudit.queue")

AnyAnswer = TypeVar("AnyAnswer")


class ShardedRegistry(ModelRegistry):
    """What a model manager calls of a `ModelRegistry`. Shards that do not answer are left out.

    Of several records the one with the highest epoch counts. Raises Redis' own errors if no shard answers.
    """

    def __init__(self, shards: Sequence[ShardAddress], registries: Sequence[ModelRegistry]) -> None:
        self._registries = {shard.name: registry for shard, registry in zip(shards, registries, strict=True)}

    def register(self, model: str, configured: ActiveRevision, replaces: str = "") -> ActiveRevision:
        return max(
            self._ask(lambda registry: registry.register(model, configured, replaces)), key=lambda active: active.epoch
        )

    def states(self, models: Sequence[str]) -> dict[str, ModelState]:
        """As of one Redis. A shard that has lost its data gets the record of the others."""
        answers = self._ask(lambda registry: (registry, registry.states(models)))
        merged = {}
        for model in models:
            states = [states[model] for _, states in answers]
            active = max((state.active for state in states if state.active), key=lambda one: one.epoch, default=None)
            if active is not None:
                for registry, of_shard in answers:
                    if of_shard[model].active is None:
                        registry.register(model, active)
            live_jobs: Counter[str] = Counter()
            for state in states:
                live_jobs.update(state.live_jobs)
            request = next((state.request for state in states if state.request), None)
            merged[model] = ModelState(active, request, live_jobs)
        return merged

    def announce(self, info: Mapping[str, Any]) -> None:
        self._ask(lambda registry: registry.announce(info))

    def report(self, request: ActivationRequest, report: ActivationReport) -> None:
        self._ask(lambda registry: registry.report(request, report))

    def served(self, model: str) -> set[str]:
        return set().union(*self._ask(lambda registry: registry.served(model)))

    def _ask(self, call: Callable[[ModelRegistry], AnyAnswer]) -> list[AnyAnswer]:
        """What the shards answer that do. Raises the error of one if none does."""
        return list(self._answers(call))

    def _answers(self, call: Callable[[ModelRegistry], AnyAnswer]) -> Iterator[AnyAnswer]:
        error: Exception = ConnectionError("no shard answers")
        num_answers = 0
        for name, registry in self._registries.items():
            if name in dead_shards and not all(one in dead_shards for one in self._registries):
                continue
            try:
                with dead_shards.noting(name):
                    answer = call(registry)
            except (RedisError, OSError) as raised:
                if isinstance(raised, ResponseError):
                    raise
                error = raised
                continue
            num_answers += 1
            yield answer
        if not num_answers:
            raise error


def open_registry(settings: Settings, worker: str) -> ModelRegistry:
    """The registry of a scoring worker: of its one shard, or of several."""
    shards = served_shards(settings)
    timeout_s = SOCKET_TIMEOUT_S if len(shards) == 1 else SHARD_TIMEOUT_S
    clients = [connect(shard.url, socket_timeout_s=timeout_s) for shard in shards]
    registries = [ModelRegistry(client, settings.namespace, worker, shard_clock(len(shards))) for client in clients]
    return registries[0] if len(registries) == 1 else ShardedRegistry(shards, registries)
