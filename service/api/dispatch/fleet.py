"""What this API process knows of the deployment: live workers, served models, queues, drain rates, Redis' memory.

- Refreshed once a second by a background loop. Everything else reads it without asking Redis.
- A worker announces itself only after its own self-test (golden set, hostile programs).
- A worker is proven once it has done a job, a probe or a client's. The service is ready only with a proven worker of
  each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from plaudit.errors import BrokerUnavailable, NotFound, NoWorker, Overloaded
from plaudit.schemas import LanguageInfo, ModelInfo
from service.queue.activation import Activations, ActiveRevision
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.memory import MemoryMonitor
from service.queue.producer import Load, Queue, Worker
from service.settings import Settings

log = logging.getLogger("plaudit.fleet")

REFRESH_S = 1.0
MAX_PROVEN = 4096  # ids of proven workers that are kept
RATE_SMOOTHING = 0.3  # weight of the newest second in the drain rate
ISOLATION_LEVELS = ("none", "landlock", "userns", "strong")  # the weakest first


@dataclass(slots=True)
class QueueMonitor:
    """A queue as last measured.

    `rate` is the cost drained per second while there was work; None until measured. It is measured from one ending to
    the next: a second in which nothing ended, because one long batch runs, does not count. When the queue has become
    empty the rate is a lower bound: otherwise a single job per second would pass for all that the workers can do.
    """

    load: Load = field(default_factory=lambda: Load(0, 0.0, 0.0, 0.0))
    rate: float | None = None
    measured_from: float | None = None  # monotonic seconds: when work was last seen to end, or to arrive

    def update(self, load: Load, now: float) -> None:
        """Take in a measurement made at `now` (monotonic seconds)."""
        drained = load.drained - self.load.drained
        if self.load.depth > 0 and self.measured_from is not None and drained > 0:
            seconds = max(1e-3, now - self.measured_from)
            new_rate = drained / seconds
            if load.depth > 0:
                old_weight = (1 - RATE_SMOOTHING) ** seconds
                self.rate = new_rate if self.rate is None else (1 - old_weight) * new_rate + old_weight * self.rate
            elif self.rate is not None:
                self.rate = max(self.rate, new_rate)
        if self.load.depth == 0 or self.measured_from is None or drained != 0:
            self.measured_from = now
        self.load = load

    def wait_s(self, tenant: str) -> float | None:
        """Expected time until a new job of this tenant begins; None while unknown.

        Tenants take turns by cost, so until the tenant's own jobs are done each other tenant is given as much as the
        tenant itself, or less if it has less. Before the first of them, one running job has to end.
        """
        load = self.load
        if load.depth == 0:
            return 0.0
        own = load.cost_by_tenant.get(tenant, 0.0)
        taking_turns = sum(min(cost, own) for cost in load.cost_by_tenant.values())
        return min(load.cost, taking_turns + load.cost / load.depth) / self.rate if self.rate else None

    def drain_s(self, tenant: str, cost: float) -> float | None:
        """Expected time until work of so much cost is done for this tenant; None while unknown.

        The tenant has an equal share of the rate, and all of it once the others' jobs are done.
        """
        others = sum(other for name, other in self.load.cost_by_tenant.items() if name != tenant)
        num_tenants = len(self.load.cost_by_tenant.keys() | {tenant})
        return min(cost * num_tenants, cost + others) / self.rate if self.rate else None


class Fleet:
    """The workers, models and queues of a deployment, as last seen."""

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self.queue = queue
        self.settings = settings
        self.broker = False
        self.activations = Activations(queue)
        self.memory = MemoryMonitor(queue, settings)
        self.workers: list[Worker] = []
        self.active: dict[str, ActiveRevision] = {}
        self.queues: dict[str, QueueMonitor] = {EXECUTE_QUEUE: QueueMonitor()}
        self._proven: OrderedDict[str, None] = OrderedDict()  # ids of workers that have done a job
        self._look_lock = asyncio.Lock()  # an older look must not overwrite a newer one

    def mark_proven(self, worker: str) -> None:
        """A worker has done a job, so it works. This outlives an outage of the broker."""
        self._proven[worker] = None
        self._proven.move_to_end(worker)
        while len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)

    def proven(self, kind: str) -> bool:
        """Whether a live worker of this kind has done a job."""
        return any(worker.id in self._proven for worker in self.of_kind(kind))

    def of_kind(self, kind: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.kind == kind]

    @property
    def models(self) -> dict[str, ModelInfo]:
        """The active revision of every model that live scorers serve; a scorer may hold another revision beside it."""
        models: dict[str, ModelInfo] = {}
        for worker in self.of_kind("score"):
            for info in worker.info["models"]:
                active = self.active.get(info["name"])
                if active is None or active.revision == info["revision"]:
                    num_workers = models[info["name"]].workers if info["name"] in models else 0
                    models[info["name"]] = ModelInfo(**info, workers=num_workers + 1)
        return models

    @property
    def versions(self) -> dict[str, str]:
        """The versions of what the live scorers compute with."""
        return {"torch": worker.info["torch"] for worker in self.of_kind("score")[:1]}  # noqa: B035

    @property
    def languages(self) -> list[LanguageInfo]:
        languages = {info["name"]: info for worker in self.of_kind("execute") for info in worker.info["languages"]}
        return [LanguageInfo(**languages[name]) for name in sorted(languages)]

    @property
    def isolation(self) -> str | None:
        """The weakest level among the live executors."""
        levels = (worker.info["isolation"] for worker in self.of_kind("execute"))
        return min(levels, key=ISOLATION_LEVELS.index, default=None)

    @property
    def toolchain(self) -> str:
        """The toolchain digest that programs are admitted for, a part of every execution's identity.

        Where executors differ it is the one that most of them have, the same for every API process that sees the same
        executors. Empty where no executor is alive.
        """
        num_executors = Counter(str(worker.info["toolchain"]) for worker in self.of_kind("execute"))
        return max(num_executors, key=lambda toolchain: (num_executors[toolchain], toolchain), default="")

    def queue_monitor(self, queue: str) -> QueueMonitor:
        return self.queues.setdefault(queue, QueueMonitor())

    # --- what a request needs ----------------------------------------------------------------------------------------

    def require_model(self, name: str) -> ModelInfo:
        """The model as its live workers announce it.

        Raises:
            NotFound: when other models are served, but not this one.
            NoWorker: when no worker that serves it is alive.
            BrokerUnavailable: when the queue does not answer.
        """
        self._require_broker()
        models = self.models
        if name in models:
            return models[name]
        if name in self.active:
            raise NoWorker(f"no scoring worker that serves {name!r} is alive", retry_after_s=2.0)
        if self.of_kind("score"):
            raise NotFound(f"model {name!r} is not served here; the models are {', '.join(sorted(models))}")
        raise NoWorker("no scoring worker is alive", retry_after_s=2.0)

    def require_executors(self) -> None:
        """Raises NoWorker or BrokerUnavailable where no program can be run."""
        self._require_broker()
        if not self.of_kind("execute"):
            raise NoWorker("no executing worker is alive", retry_after_s=2.0)
        if self.isolation == "none" and not self.settings.loopback:
            raise NoWorker(
                "the executors run programs without a sandbox (isolation none), which is for loopback only, and "
                f"this API listens on {self.settings.host}",
                retry_after_s=60.0,
            )

    def require_observers(self) -> None:
        """Raises NoWorker or BrokerUnavailable where no program can be observed.

        Any executor may take any job, so all have to know the kind. One of an older version does not announce it.
        """
        self.require_executors()
        if not all("observe" in worker.info.get("suites", ()) for worker in self.of_kind("execute")):
            raise NoWorker("an executing worker of an older version cannot observe programs yet", retry_after_s=2.0)

    def _require_broker(self) -> None:
        if not self.broker:
            raise BrokerUnavailable("the queue does not answer", retry_after_s=1.0)

    # --- refreshing --------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read who is alive and which revisions are active. Raises BrokerUnavailable.

        A worker announces a revision before it can become active. So if a revision is active that no worker has, the
        announcements were read too early and are read again.
        """
        async with self._look_lock:
            await self.queue.read_clock()
            workers = await self.queue.workers()
            names = {name for name, _ in _served(workers)}
            self.active = await self.activations.active(sorted(names | self.active.keys()))
            if {(name, active.revision) for name, active in self.active.items()} - _served(workers):
                workers = await self.queue.workers()
            self.workers = workers

    async def refresh(self) -> None:
        """Look once and measure the queues. An unreachable broker is a state (`broker`), not an error."""
        try:
            await self.look()
            await self.memory.refresh()
            names = {EXECUTE_QUEUE, *map(queue_of_model, self.models), *self.queues}
            for name in sorted(names):
                with contextlib.suppress(Overloaded):  # Redis is full; late jobs are ended when it has room again
                    await self.queue.expire(name)
                self.queue_monitor(name).update(await self.queue.load(name), time.monotonic())
            if not self.broker:
                log.info("the broker answers")
            self.broker = True
        except BrokerUnavailable as error:
            if self.broker:
                log.warning("the broker is lost: %s", error.detail)
            self.broker = False


def _served(workers: Iterable[Worker]) -> set[tuple[str, str]]:
    """The models that workers have, by name and revision."""
    return {(info["name"], info["revision"]) for worker in workers for info in worker.info.get("models", ())}
