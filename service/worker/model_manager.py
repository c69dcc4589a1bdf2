"""The models of a scoring worker by name and revision: the active one, one being loaded, and those that still drain.

Which revision is active is decided elsewhere (`service.queue.activation`). `sync` reads it between two batches:

    requested  the checkpoint is loaded in a thread of its own, checked against its golden set, announced and reported
    active     the record names a revision: its jobs come from now on; a worker without it loads it first
    draining   any other: kept while it has live jobs (at most `drain_s`), then its memory returns to the system

Every job names its revision, so several may be in progress at once and no batch mixes them. In a dtype other than
float32 the worker does not score while it loads: transformers sets torch's default dtype for the whole process.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import gc
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from plaudit.errors import HostLacks, PlauditError
from service import metrics
from service.queue.activation import ActivationReport, ActivationRequest, ActiveRevision, ModelRegistry, ModelState
from service.scoring import adapters, checkpoint
from service.scoring.batch_budget import MAX_BATCH_S, BatchBudget
from service.scoring.device import CPU, device_of
from service.scoring.encoder import Encoded
from service.scoring.engine import Engine
from service.scoring.factory import open_engine
from service.scoring.parity import Parity
from service.scoring.scheduler import Scheduler
from service.settings import Settings
from service.worker.loop import StopSignal

log = logging.getLogger("plaudit.score")

SYNC_EVERY_S = 0.05
REGISTER_EVERY_S = 1.0


@dataclass(slots=True)
class LoadedModel:
    """One loaded revision, and what waits for it.

    Attributes:
        budget: of its batches.
        info: its announcement.
        used_s: computing time that counts when models take turns.
    """

    engine: Engine
    scheduler: Scheduler[Encoded]
    budget: BatchBudget
    info: dict[str, Any]
    used_s: float = 0.0
    replaced_at: float | None = None  # by time.monotonic; None: active, or about to be


@dataclass(slots=True)
class _PendingActivation:
    request: ActivationRequest
    loading: concurrent.futures.Future[tuple[Engine, Parity]]
    revision: str | None = None  # once it is loaded
    reported: bool = False


def register_models(
    settings: Settings, registry: ModelRegistry, retry: Callable[[Callable[[], Any]], Any], stop: StopSignal
) -> dict[str, ActiveRevision]:
    """Which revision of each configured model to serve.

    It is the configured checkpoint, unless another one was activated on top of it. A worker that is configured with a
    third one waits until that is activated, or until no worker serves the active one, and then replaces it.

    Args:
        settings: `models`, by name.
        registry: where the active revisions are recorded.
        retry: calls a function until Redis answers.
        stop: ends the wait.
    """
    revisions = {}
    for name, path in settings.models.items():
        revision = checkpoint.revision_of(adapters.locate(path))
        configured = ActiveRevision(revision, path, revision)
        active: ActiveRevision = retry(lambda: registry.register(name, configured))  # noqa: B023 - called at once
        while revision not in (active.revision, active.base) and not stop.asked:
            log.warning(
                "model %r: the active revision %s was not activated on top of the checkpoint configured here, %s; "
                "waiting for an activation, or until no worker serves the active revision",
                name,
                active.revision,
                revision,
            )
            stop.sleep(REGISTER_EVERY_S)
            served: set[str] = retry(lambda: registry.served(name))  # noqa: B023
            replaces = "" if active.revision in served else active.revision
            active = retry(lambda: registry.register(name, configured, replaces))  # noqa: B023
        path = path if active.revision == revision else active.path
        revisions[name] = ActiveRevision(active.revision, path, active.base)
    return revisions


class ModelManager:
    """Opened with `open`. Without a registry it serves the models that were added, and `sync` does nothing.

    `info` is the worker's announcement; it changes with the loaded models.
    """

    def __init__(self, settings: Settings, registry: ModelRegistry | None = None) -> None:
        self._settings = settings
        self._registry = registry
        self._loaded: dict[str, dict[str, LoadedModel]] = {}  # by name, then by revision
        self._active: dict[str, ActiveRevision] = {}
        self._pending: dict[str, _PendingActivation] = {}
        self._loader = concurrent.futures.ThreadPoolExecutor(1, "loader")
        self._next_sync = 0.0
        self.info: dict[str, Any] = {"torch": str(torch.__version__), "models": []}

    @classmethod
    def open(cls, settings: Settings, active: dict[str, ActiveRevision], registry: ModelRegistry) -> ModelManager:
        """Load the active revisions.

        Raises:
            HostLacks: a checkpoint is missing, differs from its golden set, or is of another revision.
        """
        manager = cls(settings, registry)
        for name, revision in active.items():
            manager._active[name] = revision
            manager._load_active(name)
        return manager

    def add(self, name: str, engine: Engine, parity: Parity) -> None:
        """Serve a loaded and checked model beside those of its name; the first of a name is the active one."""
        self._active.setdefault(name, ActiveRevision(engine.revision, "", engine.revision))
        on_cpu = not engine.is_remote and device_of(self._settings.device) == CPU
        budget = BatchBudget(self._settings.max_batch_tokens, MAX_BATCH_S if on_cpu else None)
        loaded = LoadedModel(engine, self._new_scheduler(engine, budget), budget, _describe(name, engine, parity))
        self._loaded.setdefault(name, {})[engine.revision] = loaded
        self._update_info()

    def __getitem__(self, name: str) -> dict[str, LoadedModel]:
        """The loaded revisions of a model."""
        return self._loaded[name]

    def __iter__(self) -> Iterator[tuple[str, LoadedModel]]:
        """Every loaded model with its name; of one name the oldest first, so that draining ones finish first."""
        return iter([(name, loaded) for name, revisions in self._loaded.items() for loaded in revisions.values()])

    @property
    def names(self) -> list[str]:
        return list(self._loaded)

    def reset(self) -> None:
        """Drop everything that waits."""
        for _, loaded in self:
            loaded.scheduler = self._new_scheduler(loaded.engine, loaded.budget)

    def sync(self) -> None:
        """Follow the activations: load what is requested, switch to what is active, release what has drained.

        For the working thread, between two batches.

        Raises:
            HostLacks, UsageError: the active revision cannot be loaded, so the worker must end.
        """
        if self._registry is None or time.monotonic() < self._next_sync:
            return
        self._next_sync = time.monotonic() + SYNC_EVERY_S
        for name, state in self._registry.states(self.names).items():
            if state.active is None:  # the broker lost its data: what is served here becomes the active one
                self._registry.register(name, self._active[name])
                continue
            self._handle_request(name, state.request)
            if state.active.revision != self._active[name].revision:
                self._active[name] = state.active
                self._load_active(name)
                log.info("model activated", extra={"model": name, "revision": state.active.revision})
            self._drain(name, state)

    def _load_active(self, name: str) -> None:
        """Load the active revision of a model unless it is loaded."""
        active = self._active[name]
        if active.revision in self._loaded.get(name, {}):
            return
        try:
            engine, parity = open_engine(name, active.path, self._settings)
        except OSError as error:
            raise HostLacks(f"model {name!r}: {active.path}: {error}") from error
        if engine.revision != active.revision:
            engine.close()
            raise HostLacks(
                f"model {name!r}: revision {active.revision} is active, and {active.path} is {engine.revision}"
            )
        self.add(name, engine, parity)

    # --- activation --------------------------------------------------------------------------------------------------

    def _handle_request(self, name: str, request: ActivationRequest | None) -> None:
        """Start loading what is requested, and report once it is loaded.

        One request at a time. A request that was withdrawn is loaded to the end and then dropped.
        """
        pending = self._pending.get(name)
        if pending is not None and pending.request != request and pending.loading.done():
            if not pending.reported and pending.loading.exception() is None:
                pending.loading.result()[0].close()
            del self._pending[name]
            pending = None
        if pending is None and request is not None:
            log.info("loading a checkpoint", extra={"model": name, "path": request.path})
            pending = _PendingActivation(request, self._loader.submit(open_engine, name, request.path, self._settings))
            self._pending[name] = pending
        if pending is None:
            return
        if self._settings.engine == "transformers" and self._settings.dtype != "float32":
            concurrent.futures.wait([pending.loading])
        if pending.request == request and pending.loading.done() and not pending.reported:
            self._report(name, pending)

    def _report(self, name: str, pending: _PendingActivation) -> None:
        assert self._registry is not None
        error = pending.loading.exception()
        if error is not None:
            log.error("checkpoint rejected", exc_info=error, extra={"model": name, "path": pending.request.path})
            reason = error.detail if isinstance(error, PlauditError) else f"{type(error).__name__}: {error}"
            self._registry.report(pending.request, ActivationReport(None, reason))
        else:
            engine, parity = pending.loading.result()
            pending.revision = engine.revision
            if engine.revision in self._loaded[name]:
                engine.close()  # it is loaded already
            else:
                self.add(name, engine, parity)
            self._registry.announce(self.info)  # before the report, after which jobs of this revision may come
            self._registry.report(pending.request, ActivationReport(engine.revision))
        pending.reported = True

    # --- draining ----------------------------------------------------------------------------------------------------

    def _drain(self, name: str, state: ModelState) -> None:
        """Release what is neither active nor requested, once its jobs have ended or `drain_s` is over."""
        pending = self._pending.get(name)
        requested = pending.revision if pending and pending.request == state.request else None
        keep = {self._active[name].revision, requested}
        revisions, now = self._loaded[name], time.monotonic()
        for revision in list(revisions):
            loaded = revisions[revision]
            if revision in keep:
                loaded.replaced_at = None
                continue
            loaded.replaced_at = loaded.replaced_at or now
            overdue = now - loaded.replaced_at > self._settings.drain_s
            if not len(loaded.scheduler) and (overdue or not state.live_jobs.get(revision)):
                if pending is not None and pending.revision == revision:
                    del self._pending[name]  # it refers to the model, too
                loaded.engine.close()
                del revisions[revision], loaded
                self._update_info()
                _release_memory()
                metrics.prompt_cache_bytes.set(sum(loaded.engine.prompts.nbytes for _, loaded in self))
                log.info("model released", extra={"model": name, "revision": revision})

    # --- small things ------------------------------------------------------------------------------------------------

    def _new_scheduler(self, engine: Engine, budget: BatchBudget) -> Scheduler[Encoded]:
        return Scheduler[Encoded](
            budget.tokens,
            sharing=engine.prefix_sharing_disabled_reason is None,
            is_cached=engine.prompts.__contains__,
        )

    def _update_info(self) -> None:
        """The active revision of each name comes first."""
        self.info["models"] = [
            loaded.info
            for name, revisions in self._loaded.items()
            for _, loaded in sorted(revisions.items(), key=lambda item: item[0] != self._active[name].revision)
        ]


def _describe(name: str, engine: Engine, parity: Parity) -> dict[str, Any]:
    return {
        "name": name,
        "revision": engine.revision,
        "architecture": engine.architecture,
        "dtype": engine.dtype,
        "quantization": engine.quantization,
        "parameters": engine.parameters,
        "max_length": engine.max_length,
        "tokenizer_digest": engine.tokenizer_digest,
        "calibrated": engine.spec.calibration is not None,
        "good_label": engine.good_label,
        "template_date": engine.spec.date,
        "prefix_sharing_disabled_reason": engine.prefix_sharing_disabled_reason,
        "engine": engine.engine,
        "parity": {
            "max_abs_error": parity.max_abs_error,
            "n": parity.n,
            "tolerance": parity.tolerance,
            "max_batch_error": parity.max_batch_error,
            "own_class_error": engine.own_class_error,
        },
    }


def _release_memory() -> None:
    """Return freed memory to the system: frozen objects through the collector, empty pages from glibc, and torch's
    cache of GPU memory."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if hasattr(trim := ctypes.CDLL(None), "malloc_trim"):
        trim.malloc_trim(0)
