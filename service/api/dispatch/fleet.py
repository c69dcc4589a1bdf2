"""What this API process knows of the deployment: live workers, served models, queues, drain rates, Redis' memory.

- Each shard is refreshed once a second (`shard_monitor`). Everything else reads it without asking Redis.
- Of several shards those count that answered when they were last asked.
- A worker announces itself only after its own self-test (golden set, hostile programs).
- A worker is proven once it has done a job, a probe or a client's. The service is ready only with a proven worker of
  each kind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from plaudit.errors import BrokerUnavailable, NotFound, NoWorker
from plaudit.schemas import LanguageInfo, ModelInfo
from service.api.dispatch.shard_monitor import QueueMonitor, ShardMonitor, merged
from service.queue.activation import Activations, ActiveRevision, adopt
from service.queue.memory import MemoryUse
from service.queue.producer import Worker
from service.settings import Settings

REFRESH_S = 1.0
ISOLATION_LEVELS = ("none", "landlock", "userns", "strong", "vm")  # the weakest first


class Fleet:
    """The workers, models and queues of a deployment, as last seen."""

    def __init__(self, monitors: Sequence[ShardMonitor], settings: Settings) -> None:
        self.monitors = list(monitors)
        self.settings = settings
        self.activations = Activations([monitor.queue for monitor in monitors])

    @property
    def live(self) -> list[ShardMonitor]:
        """The shards that answered when they were last asked; of one shard what was last seen stays known."""
        return self.monitors if len(self.monitors) == 1 else [one for one in self.monitors if one.broker]

    @property
    def broker(self) -> bool:
        """Whether any shard answers."""
        return any(monitor.broker for monitor in self.monitors)

    @property
    def workers(self) -> list[Worker]:
        """Live workers; one that serves several shards is one worker."""
        if len(self.monitors) == 1:
            return self.monitors[0].workers
        return list({worker.id: worker for monitor in self.live for worker in monitor.workers}.values())

    @property
    def active(self) -> dict[str, ActiveRevision]:
        """The active revision of each model: of all shards' records the newest."""
        if len(self.monitors) == 1:
            return self.monitors[0].active
        newest: dict[str, ActiveRevision] = {}
        for monitor in self.live:
            for model, record in monitor.active.items():
                if model not in newest or newest[model].epoch < record.epoch:
                    newest[model] = record
        return newest

    @property
    def queues(self) -> dict[str, QueueMonitor]:
        """The queues by name; of several shards all together."""
        if len(self.monitors) == 1:
            return self.monitors[0].queues
        by_name: dict[str, list[QueueMonitor]] = {}
        for monitor in self.live or self.monitors:
            for name, queue_monitor in monitor.queues.items():
                by_name.setdefault(name, []).append(queue_monitor)
        return {name: merged(queue_monitors) for name, queue_monitors in by_name.items()}

    @property
    def memory(self) -> MemoryUse:
        """Of several shards: what the fullest one uses, and the families of all together."""
        uses = [monitor.memory.use for monitor in self.live or self.monitors]
        fullest = max(uses, key=lambda use: use.used_bytes / use.max_bytes if use.max_bytes else 0.0)
        if len(uses) == 1:
            return fullest
        families: Counter[str] = Counter()
        budgets: Counter[str] = Counter()
        for use in uses:
            families.update(use.families)
            budgets.update(use.budgets)
        return MemoryUse(fullest.used_bytes, fullest.max_bytes, families, budgets)

    def proven(self, kind: str) -> bool:
        """Whether a live worker of this kind has done a job."""
        return any(monitor.proven(kind) for monitor in self.live)

    def of_kind(self, kind: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.kind == kind]

    @property
    def models(self) -> dict[str, ModelInfo]:
        """The active revision of every model that live scorers serve; a scorer may hold another revision beside it."""
        models: dict[str, ModelInfo] = {}
        active_revisions = self.active
        for worker in self.of_kind("score"):
            for info in worker.info["models"]:
                active = active_revisions.get(info["name"])
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

    async def refresh(self) -> None:
        """Look at all shards once."""
        await asyncio.gather(*(monitor.refresh() for monitor in self.monitors))

    async def look(self) -> None:
        """Read who is alive and which revisions are active. Raises BrokerUnavailable if no shard answers."""
        outcomes = await asyncio.gather(*(monitor.look() for monitor in self.live), return_exceptions=True)
        errors = [outcome for outcome in outcomes if outcome is not None]
        if len(errors) == len(outcomes):
            raise errors[0] if errors else BrokerUnavailable("the queue does not answer", retry_after_s=1.0)

    async def reconcile(self) -> None:
        """Give shards that were away during an activation the newest record of each model."""
        for model, record in self.active.items():
            for monitor in self.live:
                known = monitor.active.get(model)
                if known is not None and known.epoch < record.epoch:
                    await adopt(monitor.queue, model, record)
