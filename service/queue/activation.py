"""Which revision of a model is the active one, and how all workers move to another in one step.

The record `active:{queue}` says which revision a model's queue admits (`submit.lua` refuses jobs of any other), where
its checkpoint lies, since when, and upon which configured revision (`base`) somebody activated it. It lasts as long as
the broker's data.

An activation is an order with a short life that the API renews while it waits. Every worker of the model that sees it
loads the checkpoint beside the one that it serves, proves it, announces that it has both, and reports. When all live
workers have reported the same digest, `commit.lua` changes the record; from that moment nothing is admitted for the
old revision, whose last jobs are done by whoever still has it. A refusal, or an order that ends (the API died), leaves
everything as it was.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from plaudit.errors import ActivationRunning, CheckpointRefused, NoWorker
from service.queue.keys import Keys, queue_of_model, script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors, now_ms

ORDER_MS = 5000  # an order whose API is silent for so long is void
KEEP_REPORTS_S = 600
POLL_S = 0.05


class Active(msgspec.Struct, frozen=True):
    """What a model's queue admits. `base`: the configured revision that it was activated upon."""

    revision: str
    path: str
    base: str


class Order(msgspec.Struct, frozen=True):
    """Load the checkpoint at `path` and say which revision it is."""

    id: str
    path: str


class Report(msgspec.Struct, frozen=True):
    """A worker's answer to an order: the revision that it has ready, or why it has none."""

    revision: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What a worker sees of one model. `live`: jobs not ended yet, by revision."""

    active: Active | None
    order: Order | None
    live: Mapping[str, int]


class Registry:
    """A worker's side; synchronous. Redis' errors come through."""

    def __init__(self, client: Any, namespace: str, worker: str) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._worker = worker
        self._enrol = client.register_script(script("enrol"))

    def enrol(self, model: str, mine: Active, replaces: str = "") -> Active:
        """Come with a checkpoint; answers the active one, which is it if there was none or only `replaces`."""
        keys = [self._keys.active(queue_of_model(model)), self._keys.sources]
        found = self._enrol(keys=keys, args=[mine.revision, mine.path, mine.base, now_ms(), replaces])
        return Active(*(field.decode() for field in found))

    def states(self, models: Sequence[str]) -> dict[str, State]:
        """What each model's queue admits, is ordered to prepare, and still has to do; all of one moment."""
        with self._client.pipeline(transaction=True) as pipe:
            for queue in map(queue_of_model, models):
                pipe.hmget(self._keys.active(queue), "revision", "path", "base")
                pipe.get(self._keys.order(queue))
                pipe.hgetall(self._keys.tags(queue))
            answers = pipe.execute()
        return {
            model: State(
                _active(answers[3 * at]),
                _order(answers[3 * at + 1]),
                {tag.decode(): int(count) for tag, count in answers[3 * at + 2].items()},
            )
            for at, model in enumerate(models)
        }

    def announce(self, info: Mapping[str, Any]) -> None:
        """Say now, and not with the next heartbeat, what this worker serves."""
        self._client.hset(self._keys.workers_info, self._worker, msgspec.json.encode(info))

    def report(self, order: Order, report: Report) -> None:
        key = self._keys.reports(order.id)
        self._client.hset(key, self._worker, msgspec.json.encode(report))
        self._client.expire(key, KEEP_REPORTS_S)

    def served(self, model: str) -> set[str]:
        """Revisions of a model that live workers announce."""
        names = self._client.zrangebyscore(self._keys.workers, now_ms(), "+inf")
        infos = self._client.hmget(self._keys.workers_info, names) if names else []
        found = [msgspec.json.decode(info) for info in infos if info]
        return {one["revision"] for info in found for one in info.get("models", ()) if one["name"] == model}


def _active(fields: Sequence[bytes | None]) -> Active | None:
    return None if fields[0] is None else Active(*(field.decode() if field else "" for field in fields))


def _order(frame: bytes | None) -> Order | None:
    return None if frame is None else msgspec.json.decode(frame, type=Order)


class Activations:
    """The API's side: reads the records, and carries out an activation from order to commit."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._commit = queue.client.register_script(script("commit"))

    async def active(self, models: Sequence[str]) -> dict[str, Active]:
        """The records of these models; one without a record is not in the answer."""
        with broker_errors():
            async with self._queue.client.pipeline(transaction=False) as pipe:
                for model in models:
                    pipe.hmget(self._queue.keys.active(queue_of_model(model)), "revision", "path", "base")
                answers = await pipe.execute() if models else []
        found = {model: _active(fields) for model, fields in zip(models, answers, strict=True)}
        return {model: one for model, one in found.items() if one is not None}

    async def sources(self) -> dict[str, str]:
        """Where the checkpoints lie that were configured or activated here, by revision."""
        with broker_errors():
            found = await self._queue.client.hgetall(self._queue.keys.sources)
        return {revision.decode(): path.decode() for revision, path in found.items()}

    async def activate(self, model: str, path: str, revision: str | None, until: float) -> tuple[str, int]:
        """Have every live worker load `path`, then make it the active one; answers its revision and how many they are.

        `revision`: what it must be, if that is known. `until`: by `time.monotonic`. Raises ActivationRunning,
        CheckpointRefused and NoWorker, and then nothing has changed.
        """
        key, client = self._queue.keys.order(queue_of_model(model)), self._queue.client
        order = Order(uuid.uuid4().hex, path)
        frame = msgspec.json.encode(order)
        with broker_errors():
            if not await client.set(key, frame, nx=True, px=ORDER_MS):
                raise ActivationRunning(f"another activation of {model!r} is under way", retry_after_s=1.0)
            try:
                found, workers = await self._prepared(model, order, key, revision, until)
                keys = [key, self._queue.keys.active(queue_of_model(model)), self._queue.keys.sources]
                if not await self._commit(keys=keys, args=[frame, found, path, now_ms()]):
                    raise NoWorker("the activation took too long to be heard of", retry_after_s=1.0)
            finally:
                await asyncio.shield(self._withdraw(key, frame))
        return found, workers

    async def _prepared(
        self, model: str, order: Order, key: str, revision: str | None, until: float
    ) -> tuple[str, int]:
        """Wait until all live workers of the model have it ready."""
        client = self._queue.client
        while True:
            raw = await client.hgetall(self._queue.keys.reports(order.id))
            reports = {name.decode(): msgspec.json.decode(frame, type=Report) for name, frame in raw.items()}
            refusals = sorted({one.reason for one in reports.values() if one.revision is None})
            if refusals:
                raise CheckpointRefused("; ".join(refusals))
            found = {one.revision for one in reports.values() if one.revision is not None}
            if wrong := found - ({revision} if revision is not None else found):
                raise CheckpointRefused(f"{order.path} is {wrong.pop()}, not {revision}")
            if len(found) > 1:
                raise CheckpointRefused(f"workers find {' and '.join(sorted(found))} at {order.path}")
            live = {
                worker.id
                for worker in await self._queue.workers()
                if any(one["name"] == model for one in worker.info.get("models", ()))
            }
            if not live:
                raise NoWorker(f"no scoring worker that serves {model!r} is alive", retry_after_s=2.0)
            if found and live <= reports.keys():
                return found.pop(), len(live)
            if time.monotonic() > until:
                waiting = len(live - reports.keys())
                raise NoWorker(f"{waiting} of {len(live)} workers had not loaded it in time", retry_after_s=5.0)
            await client.pexpire(key, ORDER_MS)
            await asyncio.sleep(POLL_S)

    async def _withdraw(self, key: str, frame: bytes) -> None:
        """End the order if it is still ours; one that is not withdrawn is void in a few seconds."""
        if await self._queue.client.get(key) == frame:
            await self._queue.client.delete(key)
