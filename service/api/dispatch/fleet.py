"""What this API process knows of the rest: who is alive, how long the lines are, how fast they drain.

Refreshed once a second; every other room reads it without asking Redis. A worker announces itself only after its own
self-test (golden set, hostile programs); ready also means that a live worker of each kind has done a job, a probe or
anybody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from plaudit.errors import BrokerUnavailable, Overloaded
from plaudit.schemas import LanguageInfo, ModelInfo
from service.queue.activation import Activations, ActiveRevision
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.producer import Load, Queue, Worker
from service.settings import Settings

log = logging.getLogger("plaudit.fleet")

REFRESH_S = 1.0
MAX_PROVEN = 4096  # ids of workers that are remembered
RATE_SMOOTHING = 0.3  # weight of the newest second in the drain rate


@dataclass(slots=True)
class Line:
    """A queue as last seen. `rate`: cost drained per second while there was work; None until measured.

    It is measured from one piece of work that ended to the next: a second in which nothing ended, because one long
    batch is under way, says nothing. At an empty queue the rate was at least so high: else a single job a second would
    pass for all that the workers can do.
    """

    load: Load = field(default_factory=lambda: Load(0, 0.0, 0.0, 0.0))
    rate: float | None = None
    since: float | None = None  # when the last work was seen to end, or to come

    def update(self, load: Load, now: float) -> None:
        drained = load.drained - self.load.drained
        if self.load.depth > 0 and self.since is not None and drained > 0:
            seconds = max(1e-3, now - self.since)
            fresh = drained / seconds
            if load.depth > 0:
                kept = (1 - RATE_SMOOTHING) ** seconds
                self.rate = fresh if self.rate is None else (1 - kept) * fresh + kept * self.rate
            elif self.rate is not None:
                self.rate = max(self.rate, fresh)
        if self.load.depth == 0 or self.since is None or drained != 0:
            self.since = now
        self.load = load

    def wait_s(self, cost: float = 0.0) -> float | None:
        """Expected time until `cost` more would be drained; None while unknown."""
        if self.load.depth == 0 and not cost:
            return 0.0
        return (self.load.cost + cost) / self.rate if self.rate else None


class Fleet:
    def __init__(self, queue: Queue, settings: Settings) -> None:
        self.queue = queue
        self.settings = settings
        self.broker = False
        self.activations = Activations(queue)
        self.workers: list[Worker] = []
        self.active: dict[str, ActiveRevision] = {}
        self.lines: dict[str, Line] = {EXECUTE_QUEUE: Line()}
        self._proven: OrderedDict[str, None] = OrderedDict()  # ids of workers that have done a job
        self._refreshed = asyncio.Event()
        self._looking = asyncio.Lock()  # what was seen later must not be overwritten by what was seen before

    def prove(self, worker: str) -> None:
        """A worker has done a job, so it works: of the probe or of anybody. Proof outlives an outage of the broker."""
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
        """The active revision of every model that live scorers serve; a scorer may have another one beside it."""
        found: dict[str, ModelInfo] = {}
        for worker in self.of_kind("score"):
            for info in worker.info["models"]:
                active = self.active.get(info["name"])
                if active is None or active.revision == info["revision"]:
                    known = found[info["name"]].workers if info["name"] in found else 0
                    found[info["name"]] = ModelInfo(**info, workers=known + 1)
        return found

    @property
    def versions(self) -> dict[str, str]:
        """What the live scorers compute with."""
        return {"torch": worker.info["torch"] for worker in self.of_kind("score")[:1]}  # noqa: B035

    @property
    def languages(self) -> list[LanguageInfo]:
        found = {one["name"]: one for worker in self.of_kind("execute") for one in worker.info["languages"]}
        return [LanguageInfo(**found[name]) for name in sorted(found)]

    @property
    def isolation(self) -> str | None:
        """The weakest level among the live executors."""
        order = ("none", "landlock", "userns", "strong")
        return min((worker.info["isolation"] for worker in self.of_kind("execute")), key=order.index, default=None)

    @property
    def toolchain(self) -> str:
        """What programs are admitted for; part of every execution's identity. Empty where no executor is alive.

        Of a fleet of several it is the one that most executors have, the same for every API that sees the same fleet.
        """
        counted = Counter(str(worker.info["toolchain"]) for worker in self.of_kind("execute"))
        return max(counted, key=lambda one: (counted[one], one), default="")

    def line(self, queue: str) -> Line:
        return self.lines.setdefault(queue, Line())

    async def look(self) -> None:
        """See who is alive and which revisions are active. Raises BrokerUnavailable.

        A worker announces a revision before it can become active: if one is active that nobody seems to have, the
        announcements were read too early.
        """
        async with self._looking:
            workers = await self.queue.workers()
            names = {one["name"] for worker in workers for one in worker.info.get("models", ())}
            self.active = await self.activations.active(sorted(names | self.active.keys()))
            served = {(one["name"], one["revision"]) for worker in workers for one in worker.info.get("models", ())}
            if {(name, one.revision) for name, one in self.active.items()} - served:
                workers = await self.queue.workers()
            self.workers = workers

    async def refresh(self) -> None:
        """Look once. An unreachable broker is what it finds out; a full one still has its queues looked at."""
        try:
            await self.look()
            queues = {EXECUTE_QUEUE, *map(queue_of_model, self.models), *self.lines}
            for name in sorted(queues):
                with contextlib.suppress(Overloaded):  # Redis is full; late jobs are ended when it has room again
                    await self.queue.expire(name)
                self.line(name).update(await self.queue.load(name), time.monotonic())
            if not self.broker:
                log.info("broker answers")
            self.broker = True
        except BrokerUnavailable as error:
            if self.broker:
                log.warning("broker lost: %s", error.detail)
            self.broker = False
        self._refreshed.set()
