"""Which revision of a model is active, and how all workers move to another one in one step.

The record `active:{queue}` says which revision a model's queue admits (`submit.lua` rejects jobs of any other), where
its checkpoint is, since when, and on top of which configured revision (`base`) it was activated. It lasts as long as
the broker's data.

An activation:
1. The API stores a request that expires soon, and renews it while it waits.
2. Every worker of the model loads the checkpoint beside the one that it serves, checks it against its golden set,
   announces both, and reports.
3. When all live workers have reported the same revision, `commit.lua` changes the record. From then on nothing is
   admitted for the old revision; its last jobs are done by the workers that still have it.

A worker that rejects the checkpoint, or a request that expires (the API crashed), leaves everything as it was.

With several shards each has a record, which admits by itself. A request's jobs are of one revision, so whatever shards
it goes to, it is never answered by two. An activation asks the workers of all shards that answer, and commits on all of
them at the same moment; the `epoch` of a record counts the activations. A shard that was away has an older epoch, and
the API gives it the newest record when it comes back (`reconcile`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from plaudit.errors import ActivationRunning, BrokerUnavailable, CheckpointRefused, NoWorker
from service.queue.keys import Keys, queue_of_model, script
from service.queue.producer import Queue
from service.queue.protocol import Clock, broker_errors, clock

log = logging.getLogger("plaudit.queue")

REQUEST_MS = 5000  # a request that its API does not renew expires
KEEP_REPORTS_S = 600
RECORD = ("revision", "path", "base", "epoch")  # fields of the hash
POLL_S = 0.05


class ActiveRevision(msgspec.Struct, frozen=True):
    """What a model's queue admits.

    Attributes:
        base: the configured revision on top of which it was activated.
        epoch: counts the activations; the record with the highest is the newest.
    """

    revision: str
    path: str
    base: str
    epoch: int = 0


class ActivationRequest(msgspec.Struct, frozen=True):
    """Load the checkpoint at `path` and report which revision it is."""

    id: str
    path: str


class ActivationReport(msgspec.Struct, frozen=True):
    """A worker's answer to a request: the revision that it has ready, or why it has none."""

    revision: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelState:
    """What a worker sees of one model. `live_jobs`: how many have not ended yet, by revision."""

    active: ActiveRevision | None
    request: ActivationRequest | None
    live_jobs: Mapping[str, int]


class ModelRegistry:
    """A worker's side; synchronous. Raises Redis' own errors."""

    def __init__(self, client: Any, namespace: str, worker: str, clock: Clock = clock) -> None:
        self._client = client
        self._clock = clock  # of this Redis
        self._keys = Keys(namespace)
        self._worker = worker
        self._register = client.register_script(script("register"))

    def register(self, model: str, configured: ActiveRevision, replaces: str = "") -> ActiveRevision:
        """Register a configured checkpoint and return the active one.

        The configured one becomes active if none is, or if the active revision is `replaces`.
        """
        keys = [self._keys.active(queue_of_model(model)), self._keys.sources]
        args = [configured.revision, configured.path, configured.base, self._clock.now_ms(), replaces, configured.epoch]
        active = _read_active(self._register(keys=keys, args=args))
        assert active is not None
        return active

    def states(self, models: Sequence[str]) -> dict[str, ModelState]:
        """The active revision, the pending request and the live jobs of each model, all of one moment."""
        with self._client.pipeline(transaction=True) as pipe:
            for queue in map(queue_of_model, models):
                pipe.hmget(self._keys.active(queue), RECORD)
                pipe.get(self._keys.activation_request(queue))
                pipe.hgetall(self._keys.tags(queue))
            answers = pipe.execute()
        return {
            model: ModelState(
                _read_active(answers[3 * index]),
                _read_request(answers[3 * index + 1]),
                {tag.decode(): int(count) for tag, count in answers[3 * index + 2].items()},
            )
            for index, model in enumerate(models)
        }

    def announce(self, info: Mapping[str, Any]) -> None:
        """Announce what this worker serves now, without waiting for the next heartbeat."""
        self._client.hset(self._keys.workers_info, self._worker, msgspec.json.encode(info))

    def report(self, request: ActivationRequest, report: ActivationReport) -> None:
        """Answer a request."""
        key = self._keys.activation_reports(request.id)
        self._client.hset(key, self._worker, msgspec.json.encode(report))
        self._client.expire(key, KEEP_REPORTS_S)

    def served(self, model: str) -> set[str]:
        """Revisions of a model that live workers announce."""
        self._clock.read(self._client)
        names = self._client.zrangebyscore(self._keys.workers, self._clock.now_ms(), "+inf")
        infos = self._client.hmget(self._keys.workers_info, names) if names else []
        served = [served for info in infos if info for served in msgspec.json.decode(info).get("models", ())]
        return {info["revision"] for info in served if info["name"] == model}


def _read_active(fields: Sequence[bytes | None]) -> ActiveRevision | None:
    if fields[0] is None:
        return None
    revision, path, base, epoch = (field.decode() if field else "" for field in fields)
    return ActiveRevision(revision, path, base, int(epoch or 0))  # older versions write no epoch


def _read_request(frame: bytes | None) -> ActivationRequest | None:
    return None if frame is None else msgspec.json.decode(frame, type=ActivationRequest)


async def read_active(queue: Queue, models: Sequence[str]) -> dict[str, ActiveRevision]:
    """The records of these models in one Redis; a model without a record is left out."""
    with broker_errors():
        async with queue.client.pipeline(transaction=False) as pipe:
            for model in models:
                pipe.hmget(queue.keys.active(queue_of_model(model)), RECORD)
            answers = await pipe.execute() if models else []
    records = {model: _read_active(fields) for model, fields in zip(models, answers, strict=True)}
    return {model: record for model, record in records.items() if record is not None}


async def adopt(queue: Queue, model: str, record: ActiveRevision) -> None:
    """Give one Redis the record of another one that is newer."""
    keys = [queue.keys.active(queue_of_model(model)), queue.keys.sources]
    args = [record.revision, record.path, record.base, queue.clock.now_ms(), record.epoch]
    with broker_errors():
        if await queue.client.register_script(script("adopt"))(keys=keys, args=args):
            log.info("a shard that lagged behind has the active revision", extra={"model": model})


class Activations:
    """The API's side: carries out an activation from request to commit, on all shards that answer."""

    def __init__(self, queues: Sequence[Queue]) -> None:
        self._queues = queues
        self._commit = queues[0].client.register_script(script("commit"))

    async def sources(self) -> dict[str, str]:
        """Paths of the checkpoints that were configured or activated here, by revision."""
        paths: dict[bytes, bytes] = {}
        for queue in self._queues:
            with self._one_may_fail(), broker_errors():
                paths |= await queue.client.hgetall(queue.keys.sources)
        return {revision.decode(): path.decode() for revision, path in paths.items()}

    @contextlib.contextmanager
    def _one_may_fail(self) -> Iterator[None]:
        """Of several shards those that do not answer are left out."""
        try:
            yield
        except BrokerUnavailable as error:
            if len(self._queues) == 1:
                raise
            log.warning("a shard is left out: %s", error.detail)

    async def activate(self, model: str, path: str, revision: str | None, until: float) -> tuple[str, int]:
        """Have every live worker load a checkpoint, then make it the active one.

        Args:
            model: the model's name.
            path: folder or hub id of the checkpoint, as the workers see it.
            revision: what the checkpoint must be; None: any.
            until: when to give up, by `time.monotonic`.

        Returns:
            The revision, and how many workers serve it.

        Raises:
            ActivationRunning, CheckpointRefused, NoWorker: nothing has changed.
            BrokerUnavailable: no shard answers.
        """
        name = queue_of_model(model)
        request = ActivationRequest(uuid.uuid4().hex, path)
        frame = msgspec.json.encode(request)
        asked: list[Queue] = []
        try:
            for queue in self._queues:
                with self._one_may_fail(), broker_errors():
                    key = queue.keys.activation_request(name)
                    if not await queue.client.set(key, frame, nx=True, px=REQUEST_MS):
                        raise ActivationRunning(f"another activation of {model!r} is running", retry_after_s=1.0)
                    asked.append(queue)
            if not asked:
                raise BrokerUnavailable("the queue does not answer", retry_after_s=1.0)
            with broker_errors():
                ready, num_workers = await self._wait_for_workers(model, request, asked, revision, until)
                await self._commit_all(model, asked, frame, ready, path)
        finally:
            for queue in asked:
                await asyncio.shield(self._withdraw(queue, name, frame))
        return ready, num_workers

    async def _commit_all(self, model: str, queues: Sequence[Queue], frame: bytes, revision: str, path: str) -> None:
        """Change the records of all shards at the same moment. One that does not answer just now is reconciled."""
        records = [(await read_active(queue, [model])).get(model) for queue in queues]
        epoch = 1 + max(record.epoch if record else 0 for record in records)
        name = queue_of_model(model)
        outcomes = await asyncio.gather(
            *(
                self._commit(
                    keys=[queue.keys.activation_request(name), queue.keys.active(name), queue.keys.sources],
                    args=[frame, revision, path, queue.clock.now_ms(), epoch],
                    client=queue.client,
                )
                for queue in queues
            ),
            return_exceptions=True,
        )
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if len(errors) == len(outcomes):
            raise errors[0]
        if not any(outcome == 1 for outcome in outcomes):
            raise NoWorker("the activation expired before it could be committed; try again", retry_after_s=1.0)

    async def _wait_for_workers(
        self, model: str, request: ActivationRequest, queues: Sequence[Queue], revision: str | None, until: float
    ) -> tuple[str, int]:
        """Wait until all live workers of the model, on every shard, have the checkpoint ready."""
        while True:
            ready: set[str] = set()
            live: set[str] = set()
            num_missing = 0
            for queue in queues:
                shard_ready, shard_live, shard_missing = await self._progress(model, request, queue, revision)
                ready, live, num_missing = ready | shard_ready, live | shard_live, num_missing + shard_missing
            if len(ready) > 1:
                raise CheckpointRefused(f"workers find {' and '.join(sorted(ready))} at {request.path}")
            if ready and not num_missing:
                return ready.pop(), len(live)
            if time.monotonic() > until:
                raise NoWorker(
                    f"{num_missing} of {len(live)} workers had not loaded the checkpoint in time", retry_after_s=5.0
                )
            for queue in queues:
                await queue.client.pexpire(queue.keys.activation_request(queue_of_model(model)), REQUEST_MS)
            await asyncio.sleep(POLL_S)

    async def _progress(
        self, model: str, request: ActivationRequest, queue: Queue, revision: str | None
    ) -> tuple[set[str], set[str], int]:
        """On one shard: the revisions that are ready, the live workers of the model, and how many have not reported."""
        raw = await queue.client.hgetall(queue.keys.activation_reports(request.id))
        reports = {name.decode(): msgspec.json.decode(frame, type=ActivationReport) for name, frame in raw.items()}
        reasons = sorted({report.reason for report in reports.values() if report.revision is None})
        if reasons:
            raise CheckpointRefused("; ".join(reasons))
        revisions = {report.revision for report in reports.values() if report.revision is not None}
        if wrong := revisions - ({revision} if revision is not None else revisions):
            raise CheckpointRefused(f"{request.path} is {wrong.pop()}, not {revision}")
        live = {
            worker.id
            for worker in await queue.workers()
            if any(info["name"] == model for info in worker.info.get("models", ()))
        }
        if not live:
            raise NoWorker(f"no scoring worker that serves {model!r} is alive", retry_after_s=2.0)
        return revisions, live, len(live - reports.keys())

    async def _withdraw(self, queue: Queue, name: str, frame: bytes) -> None:
        """Delete the request if it is still this one; one that is not deleted expires in a few seconds."""
        key = queue.keys.activation_request(name)
        with self._one_may_fail(), broker_errors():
            if await queue.client.get(key) == frame:
                await queue.client.delete(key)
