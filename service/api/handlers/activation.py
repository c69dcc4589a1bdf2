"""`POST /models/{name}/activate`: which checkpoint is meant, and the swap of all workers to it."""

from __future__ import annotations

import time

from plaudit.errors import ActivationRunning, CheckpointRefused, PlauditError, RevisionUnknown
from plaudit.schemas import ActivateAnswer, ActivateRequest
from service import metrics
from service.api.dispatch.fleet import Fleet
from service.api.handlers.validation import Door
from service.queue.protocol import now_ms

ACTIVATE_MS = 600_000  # of a request that brings no deadline: large checkpoints are read from slow disks


async def activate(fleet: Fleet, door: Door, name: str, request: ActivateRequest, until_ms: int) -> ActivateAnswer:
    """Swap; what was active goes on serving unless this returns.

    A revision alone must be known here: configured for any model, or activated before. Raises RevisionUnknown,
    ActivationRunning, CheckpointRefused, and NotFound or NoWorker for a model that nobody serves.
    """
    began = time.perf_counter()
    before = door.model(name)
    if request.path is None and request.revision == before.revision:
        return ActivateAnswer(name=name, revision=before.revision, previous=before.revision, workers=before.workers)
    path = request.path or (await fleet.activations.sources()).get(request.revision or "")
    if path is None:
        raise RevisionUnknown(f"no checkpoint {request.revision} is known here; give its `path`, too")
    until = time.monotonic() + (until_ms - now_ms()) / 1000
    try:
        revision, workers = await fleet.activations.activate(name, path, request.revision, until)
    except PlauditError as error:
        outcome = "refused" if isinstance(error, CheckpointRefused | ActivationRunning) else "failed"
        metrics.activations.labels(name, outcome).inc()
        raise
    metrics.activations.labels(name, "done").inc()
    await fleet.look()
    return ActivateAnswer(
        name=name,
        revision=revision,
        previous=before.revision,
        workers=workers,
        took_ms=round((time.perf_counter() - began) * 1000, 1),
    )
