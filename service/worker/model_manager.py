"""The models of a scoring worker by name and revision: the active one, one being made ready, those that still drain.

Which revision is active is not this worker's to say (`service.queue.activation`). `follow` looks between two batches:

    ordered    the checkpoint is loaded in a thread of its own, proven against its golden set, announced, reported
    active     the record names a revision: jobs of it come from now on; a worker that has it not loads it first
    draining   any other: kept while jobs of it live (at most `drain_s`), then its memory goes back to the system

Every job says its revision, so both may be in hand at once and no batch mixes them. In another type than float32 the
worker does not score while it loads: transformers sets torch's default type for the whole process as it builds a model.
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
from service.queue.activation import Active, Order, Registry, Report, State
from service.scoring import checkpoint
from service.scoring.encoder import Encoded
from service.scoring.engine import Engine
from service.scoring.factory import open_engine
from service.scoring.parity import Parity
from service.scoring.scheduler import Scheduler
from service.settings import Settings
from service.worker.loop import Stop

log = logging.getLogger("plaudit.score")

LOOK_S = 0.05
WAIT_S = 1.0


@dataclass(slots=True)
class Place:
    """One revision on the shelf, and what waits for it. `info`: as it is announced."""

    model: Engine
    scheduler: Scheduler[Encoded]
    info: dict[str, Any]
    replaced_at: float | None = None  # by time.monotonic; None: active, or being made so


@dataclass(slots=True)
class _Preparation:
    order: Order
    loading: concurrent.futures.Future[tuple[Engine, Parity]]
    revision: str | None = None  # once it is on the shelf
    reported: bool = False


def enrol(
    settings: Settings, registry: Registry, patiently: Callable[[Callable[[], Any]], Any], stop: Stop
) -> dict[str, Active]:
    """Which revision of each configured model to serve.

    It is the configured checkpoint, unless another one was activated upon it. A worker that is configured with a third
    one waits until that is activated, or until nobody serves the active one any more, whose place it then takes.
    """
    found = {}
    for name, path in settings.models.items():
        revision = checkpoint.revision_of(checkpoint.locate(path))
        mine = Active(revision, path, revision)
        active: Active = patiently(lambda: registry.enrol(name, mine))  # noqa: B023 - called at once
        while revision not in (active.revision, active.base) and not stop.asked:
            log.warning(
                "model %r: %s is active, and not upon the checkpoint configured here, %s; waiting for an activation, "
                "or for the last worker that serves it to go",
                name,
                active.revision,
                revision,
            )
            stop.sleep(WAIT_S)
            served: set[str] = patiently(lambda: registry.served(name))  # noqa: B023
            replaces = "" if active.revision in served else active.revision
            active = patiently(lambda: registry.enrol(name, mine, replaces))  # noqa: B023
        found[name] = Active(active.revision, path if active.revision == revision else active.path, active.base)
    return found


class Shelf:
    """Opened with `open`; without a registry it serves what was put on it and follows nobody.

    `info` is the worker's announcement; it changes with what is on the shelf.
    """

    def __init__(self, settings: Settings, registry: Registry | None = None) -> None:
        self._settings = settings
        self._registry = registry
        self._places: dict[str, dict[str, Place]] = {}
        self._active: dict[str, Active] = {}
        self._preparing: dict[str, _Preparation] = {}
        self._loader = concurrent.futures.ThreadPoolExecutor(1, "loader")
        self._look_at = 0.0
        self.info: dict[str, Any] = {"torch": str(torch.__version__), "models": []}

    @classmethod
    def open(cls, settings: Settings, active: dict[str, Active], registry: Registry) -> Shelf:
        """Load what is active. Raises HostLacks for a checkpoint that is not there, drifts or is another one."""
        shelf = cls(settings, registry)
        for name, one in active.items():
            shelf._active[name] = one
            shelf._have_active(name)
        return shelf

    def put(self, name: str, model: Engine, parity: Parity) -> None:
        """A loaded and proven model, beside those of its name; the first one is the active one."""
        self._active.setdefault(name, Active(model.revision, "", model.revision))
        place = Place(model, self._scheduler(model), _describe(name, model, parity))
        self._places.setdefault(name, {})[model.revision] = place
        self._tell()

    def __getitem__(self, name: str) -> dict[str, Place]:
        """The places of a model, by revision."""
        return self._places[name]

    def __iter__(self) -> Iterator[tuple[str, Place]]:
        """Every place with its model's name; of one name the oldest first, so that what drains is done first."""
        return iter([(name, place) for name, places in self._places.items() for place in places.values()])

    @property
    def names(self) -> list[str]:
        return list(self._places)

    def reset(self) -> None:
        """Forget everything that waits."""
        for _, place in self:
            place.scheduler = self._scheduler(place.model)

    def follow(self) -> None:
        """Look what is ordered and what is active, and do it. For the working thread, between two batches.

        Raises HostLacks or UsageError when the active revision cannot be had: a worker that cannot follow must go.
        """
        if self._registry is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        for name, state in self._registry.states(self.names).items():
            if state.active is None:  # the broker lost its data: what is served here is what is active
                self._registry.enrol(name, self._active[name])
                continue
            self._heed(name, state.order)
            if state.active.revision != self._active[name].revision:
                self._active[name] = state.active
                self._have_active(name)
                log.info("model activated", extra={"model": name, "revision": state.active.revision})
            self._drain(name, state)

    def _have_active(self, name: str) -> None:
        one = self._active[name]
        if one.revision in self._places.get(name, {}):
            return
        try:
            model, parity = open_engine(name, one.path, self._settings)
        except OSError as error:
            raise HostLacks(f"model {name!r}: {one.path}: {error}") from error
        if model.revision != one.revision:
            model.close()
            raise HostLacks(f"model {name!r}: {one.revision} is active, and at {one.path} is {model.revision}")
        self.put(name, model, parity)

    # --- making ready ------------------------------------------------------------------------------------------------

    def _heed(self, name: str, order: Order | None) -> None:
        """Begin what is ordered, and report once it is done. One order at a time; one that was withdrawn is let run."""
        at_work = self._preparing.get(name)
        if at_work is not None and at_work.order != order and at_work.loading.done():
            if not at_work.reported and at_work.loading.exception() is None:
                at_work.loading.result()[0].close()  # nobody waits for it any more
            del self._preparing[name]
            at_work = None
        if at_work is None and order is not None:
            log.info("loading a checkpoint", extra={"model": name, "path": order.path})
            at_work = _Preparation(order, self._loader.submit(open_engine, name, order.path, self._settings))
            self._preparing[name] = at_work
        if at_work is None:
            return
        if self._settings.engine == "transformers" and self._settings.dtype != "float32":
            concurrent.futures.wait([at_work.loading])
        if at_work.order == order and at_work.loading.done() and not at_work.reported:
            self._report(name, at_work)

    def _report(self, name: str, done: _Preparation) -> None:
        assert self._registry is not None
        error = done.loading.exception()
        if error is not None:
            log.error("checkpoint refused", exc_info=error, extra={"model": name, "path": done.order.path})
            reason = error.detail if isinstance(error, PlauditError) else f"{type(error).__name__}: {error}"
            self._registry.report(done.order, Report(None, reason))
        else:
            model, parity = done.loading.result()
            done.revision = model.revision
            if model.revision in self._places[name]:
                model.close()  # it is here already
            else:
                self.put(name, model, parity)
            self._registry.announce(self.info)  # whoever hears of the report must know that we have it
            self._registry.report(done.order, Report(model.revision))
        done.reported = True

    # --- giving back -------------------------------------------------------------------------------------------------

    def _drain(self, name: str, state: State) -> None:
        """Take from the shelf what is neither active nor ordered, once its jobs have ended or had their time."""
        at_work = self._preparing.get(name)
        keep = {self._active[name].revision, at_work.revision if at_work and at_work.order == state.order else None}
        places, now = self._places[name], time.monotonic()
        for revision in list(places):
            place = places[revision]
            if revision in keep:
                place.replaced_at = None
                continue
            place.replaced_at = place.replaced_at or now
            overdue = now - place.replaced_at > self._settings.drain_s
            if not len(place.scheduler) and (overdue or not state.live.get(revision)):
                if at_work is not None and at_work.revision == revision:
                    del self._preparing[name]  # it holds the model, too
                place.model.close()
                del places[revision], place
                self._tell()
                _give_back()
                metrics.prompt_cache_bytes.set(sum(place.model.prompts.nbytes for _, place in self))
                log.info("model released", extra={"model": name, "revision": revision})

    # --- small things ------------------------------------------------------------------------------------------------

    def _scheduler(self, model: Engine) -> Scheduler[Encoded]:
        sharing = model.prefix_sharing_disabled_reason is None
        return Scheduler[Encoded](
            self._settings.max_batch_tokens, sharing=sharing, is_cached=model.prompts.__contains__
        )

    def _tell(self) -> None:
        """The active revision of each name first."""
        self.info["models"] = [
            place.info
            for name, places in self._places.items()
            for _, place in sorted(places.items(), key=lambda one: one[0] != self._active[name].revision)
        ]


def _describe(name: str, model: Engine, parity: Parity) -> dict[str, Any]:
    return {
        "name": name,
        "revision": model.revision,
        "architecture": model.architecture,
        "dtype": model.dtype,
        "parameters": model.parameters,
        "max_length": model.max_length,
        "calibrated": model.spec.calibration is not None,
        "prefix_sharing_disabled_reason": model.prefix_sharing_disabled_reason,
        "engine": model.engine,
        "parity": {
            "max_abs_error": parity.max_abs_error,
            "n": parity.n,
            "tolerance": parity.tolerance,
            "max_batch_error": parity.max_batch_error,
        },
    }


def _give_back() -> None:
    """Return freed memory to the system: the collector looks at frozen objects again, glibc at its empty pages, torch
    at its cache of a GPU's memory."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if hasattr(trim := ctypes.CDLL(None), "malloc_trim"):
        trim.malloc_trim(0)
