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
from service.queue.protocol import broker_errors, now_ms, read_clock

REQUEST_MS = 5000  # a request that its API does not renew expires
KEEP_REPORTS_S = 600
POLL_S = 0.05


class ActiveRevision(msgspec.Struct, frozen=True):
    """What a model's queue admits. `base`: the configured revision on top of which it was activated."""

    revision: str
    path: str
    base: str


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

    def __init__(self, client: Any, namespace: str, worker: str) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._worker = worker
        self._register = client.register_script(script("register"))

    def register(self, model: str, configured: ActiveRevision, replaces: str = "") -> ActiveRevision:
        """Register a configured checkpoint and return the active one.

        The configured one becomes active if none is, or if the active revision is `replaces`.
        """
        keys = [self._keys.active(queue_of_model(model)), self._keys.sources]
        args = [configured.revision, configured.path, configured.base, now_ms(), replaces]
        return ActiveRevision(*(field.decode() for field in self._register(keys=keys, args=args)))

    def states(self, models: Sequence[str]) -> dict[str, ModelState]:
        """The active revision, the pending request and the live jobs of each model, all of one moment."""
        with self._client.pipeline(transaction=True) as pipe:
            for queue in map(queue_of_model, models):
                pipe.hmget(self._keys.active(queue), "revision", "path", "base")
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
        read_clock(self._client)
        names = self._client.zrangebyscore(self._keys.workers, now_ms(), "+inf")
        infos = self._client.hmget(self._keys.workers_info, names) if names else []
        served = [served for info in infos if info for served in msgspec.json.decode(info).get("models", ())]
        return {info["revision"] for info in served if info["name"] == model}


def _read_active(fields: Sequence[bytes | None]) -> ActiveRevision | None:
    return None if fields[0] is None else ActiveRevision(*(field.decode() if field else "" for field in fields))


def _read_request(frame: bytes | None) -> ActivationRequest | None:
    return None if frame is None else msgspec.json.decode(frame, type=ActivationRequest)


class Activations:
    """The API's side: reads the records, and carries out an activation from request to commit."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._commit = queue.client.register_script(script("commit"))

    async def active(self, models: Sequence[str]) -> dict[str, ActiveRevision]:
        """The records of these models; a model without a record is left out."""
        with broker_errors():
            async with self._queue.client.pipeline(transaction=False) as pipe:
                for model in models:
                    pipe.hmget(self._queue.keys.active(queue_of_model(model)), "revision", "path", "base")
                answers = await pipe.execute() if models else []
        records = {model: _read_active(fields) for model, fields in zip(models, answers, strict=True)}
        return {model: record for model, record in records.items() if record is not None}

    async def sources(self) -> dict[str, str]:
        """Paths of the checkpoints that were configured or activated here, by revision."""
        with broker_errors():
            paths = await self._queue.client.hgetall(self._queue.keys.sources)
        return {revision.decode(): path.decode() for revision, path in paths.items()}

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
        """
        key, client = self._queue.keys.activation_request(queue_of_model(model)), self._queue.client
        request = ActivationRequest(uuid.uuid4().hex, path)
        frame = msgspec.json.encode(request)
        with broker_errors():
            if not await client.set(key, frame, nx=True, px=REQUEST_MS):
                raise ActivationRunning(f"another activation of {model!r} is running", retry_after_s=1.0)
            try:
                ready, num_workers = await self._wait_for_workers(model, request, key, revision, until)
                keys = [key, self._queue.keys.active(queue_of_model(model)), self._queue.keys.sources]
                if not await self._commit(keys=keys, args=[frame, ready, path, now_ms()]):
                    raise NoWorker("the activation expired before it could be committed; try again", retry_after_s=1.0)
            finally:
                await asyncio.shield(self._withdraw(key, frame))
        return ready, num_workers

    async def _wait_for_workers(
        self, model: str, request: ActivationRequest, key: str, revision: str | None, until: float
    ) -> tuple[str, int]:
        """Wait until all live workers of the model have the checkpoint ready."""
        client = self._queue.client
        while True:
            raw = await client.hgetall(self._queue.keys.activation_reports(request.id))
            reports = {name.decode(): msgspec.json.decode(frame, type=ActivationReport) for name, frame in raw.items()}
            reasons = sorted({report.reason for report in reports.values() if report.revision is None})
            if reasons:
                raise CheckpointRefused("; ".join(reasons))
            revisions = {report.revision for report in reports.values() if report.revision is not None}
            if wrong := revisions - ({revision} if revision is not None else revisions):
                raise CheckpointRefused(f"{request.path} is {wrong.pop()}, not {revision}")
            if len(revisions) > 1:
                raise CheckpointRefused(f"workers find {' and '.join(sorted(revisions))} at {request.path}")
            live = {
                worker.id
                for worker in await self._queue.workers()
                if any(info["name"] == model for info in worker.info.get("models", ()))
            }
            if not live:
                raise NoWorker(f"no scoring worker that serves {model!r} is alive", retry_after_s=2.0)
            if revisions and live <= reports.keys():
                return revisions.pop(), len(live)
            if time.monotonic() > until:
                num_missing = len(live - reports.keys())
                raise NoWorker(
                    f"{num_missing} of {len(live)} workers had not loaded the checkpoint in time", retry_after_s=5.0
                )
            await client.pexpire(key, REQUEST_MS)
            await asyncio.sleep(POLL_S)

    async def _withdraw(self, key: str, frame: bytes) -> None:
        """Delete the request if it is still this one; one that is not deleted expires in a few seconds."""
        if await self._queue.client.get(key) == frame:
            await self._queue.client.delete(key)
