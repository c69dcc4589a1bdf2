"""What a deployment does now: its workers, its tenants' shares, and the gauges that its history is told of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from plaudit.schemas import TenantShare, WorkersAnswer, WorkerState
from service.api.dispatch.fleet import Fleet
from service.queue.producer import Worker

OTHERS = "others"  # the tenants that a key may not see, together


def activity_gauges(fleet: Fleet) -> dict[str, float]:
    """Depth and age of the queues, and the number of workers, by the names of the history's fields."""
    gauges: dict[str, float] = {}
    for name, monitor in fleet.queues.items():
        gauges[f"depth:{name}"] = monitor.load.depth
        gauges[f"oldest:{name}"] = monitor.load.oldest_ms
    for kind in ("score", "execute"):
        gauges[f"workers:{kind}"] = len(fleet.of_kind(kind))
    return gauges


def workers_answer(fleet: Fleet, num_requests: Mapping[str, int], tenant: str, *, sees_all: bool) -> WorkersAnswer:
    """The live workers, and the tenants as the caller may see them.

    Args:
        fleet: as last seen.
        num_requests: of the last hour, by tenant.
        tenant: the caller's.
        sees_all: whether the caller may see the others one by one.
    """
    workers = [_worker_state(worker) for worker in fleet.workers]
    return WorkersAnswer(
        workers=sorted(workers, key=lambda worker: (worker.kind, worker.host, worker.pid)),
        tenants=_shares(fleet, num_requests, tenant, sees_all=sees_all),
    )


def _worker_state(worker: Worker) -> WorkerState:
    info = worker.info
    doing: dict[str, Any] = info.get("doing") or {}
    if worker.kind == "execute":
        serves = [language["name"] for language in info["languages"]]
        what = f"a {doing.get('language', '')} program" if doing else None
    else:
        serves = [f"{model['name']} {model['revision'].removeprefix('sha256:')[:12]}" for model in info["models"]]
        what = f"{doing.get('tokens', 0)} tokens of {doing.get('groups', 0)} groups" if doing else None
    return WorkerState(
        id=worker.id,
        kind=worker.kind,  # type: ignore[arg-type]
        host=str(info.get("host", "")),
        pid=int(info.get("pid", 0)),
        doing=what,
        since_ms=doing.get("since_ms"),
        num_done=info.get("num_done"),
        serves=serves,
        isolation=info.get("isolation"),
    )


def _shares(fleet: Fleet, num_requests: Mapping[str, int], tenant: str, *, sees_all: bool) -> list[TenantShare]:
    costs: dict[str, dict[str, float]] = defaultdict(dict)
    totals: Counter[str] = Counter()
    for monitor in fleet.live:
        for queue, queue_monitor in monitor.queues.items():
            for name, cost in queue_monitor.load.cost_by_tenant.items():
                shown = name if sees_all or name == tenant else OTHERS
                costs[shown][queue] = costs[shown].get(queue, 0.0) + cost
                totals[queue] += cost  # type: ignore[assignment]  # costs are floats
    requests: Counter[str] = Counter()
    for name, num in num_requests.items():
        requests[name if sees_all or name == tenant else OTHERS] += num
    return [
        TenantShare(
            tenant=name,
            own=name == tenant,
            cost=costs[name],
            share={queue: cost / totals[queue] for queue, cost in costs[name].items() if totals[queue]},
            num_requests=requests[name],
        )
        for name in sorted({*costs, *requests, tenant})
    ]
