"""What one API process has open: made by the lifespan, read by the routes."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.schemas import Readiness
from service.api.dispatch.fleet import Fleet
from service.api.handlers.replays import Replays
from service.api.handlers.reward_service import Desk
from service.api.handlers.validation import Door
from service.api.stores.durable_requests import Ledger
from service.queue.producer import Queue
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    queue: Queue
    fleet: Fleet
    door: Door
    desk: Desk
    ledger: Ledger
    replays: Replays

    def readiness(self) -> Readiness:
        """Ready: the broker answers, and a worker of each kind that this deployment has lives and has done a job.

        A deployment with `scorers` 0 is ready without scorers, one with `executors` 0 without executors; one with
        neither has its workers elsewhere, and waits for both kinds.
        """
        fleet = self.fleet
        reasons = [] if fleet.broker else ["the queue does not answer"]
        kinds = (("score", "scoring", self.settings.scorers), ("execute", "executing", self.settings.executors))
        elsewhere = all(wanted == 0 for _, _, wanted in kinds)
        for kind, name, wanted in kinds:
            if wanted == 0 and not elsewhere:
                continue
            if not fleet.of_kind(kind):
                reasons.append(f"no {name} worker is alive")
            elif not fleet.proven(kind):
                reasons.append(f"no {name} worker has answered the probe yet")
        return Readiness(
            ready=not reasons,
            broker=fleet.broker,
            scorers=len(fleet.of_kind("score")),
            executors=len(fleet.of_kind("execute")),
            reasons=reasons,
        )
