"""How many executing actors there should be, by what waits in the queue. A function of values and of time.

- Up at once: as many as the depth asks for, and half as many again while the oldest job waits too long.
- Down slowly: fewer must have been enough for `idle_s` on end; then a quarter of the actors at most, and `idle_s` more.
- An executor with a program keeps its place: there are never fewer executors than jobs because of a shrinking queue.
- A queue that does not answer changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from service.on_ray.options import DeploymentOptions


@dataclass(frozen=True, slots=True)
class QueueDemand:
    """Jobs waiting or running, and how long the oldest waiting one has waited; over all shards."""

    depth: int
    oldest_s: float


class ExecutorScaling:
    """Remembers since when fewer actors would have been enough, and how many at most were needed since.

    A controller that is restarted has forgotten it, and so scales down later.
    """

    def __init__(self, options: DeploymentOptions) -> None:
        self._options = options
        self._since: float | None = None
        self._peak = 0

    def target(self, demand: QueueDemand | None, current: int, num_starting: int, now: float) -> int:
        """How many actors there should be.

        Args:
            demand: of the queue; None if it does not answer.
            current: actors that there are, those that start included, those that drain not.
            num_starting: of them, those that take no jobs yet.
            now: monotonic seconds.
        """
        least, most = self._options.min_actors, self._options.max_actors
        held = min(max(current, least), most)
        if demand is None:
            self._since = None
            return held
        wanted = min(max(self._needed(demand, current, num_starting), least), most)
        if wanted >= held:
            self._since = None
            return wanted
        if self._since is None:
            self._since, self._peak = now, wanted
        self._peak = max(self._peak, wanted)
        if now - self._since < self._options.idle_s:
            return held
        peak, self._since = self._peak, None
        return max(peak, held - max(1, held // 4))

    def _needed(self, demand: QueueDemand, current: int, num_starting: int) -> int:
        cpus = self._options.actor_cpus
        by_depth = math.ceil(demand.depth / (self._options.jobs_per_executor * cpus))
        at_work = min(current, math.ceil(demand.depth / cpus))
        late = demand.oldest_s > self._options.max_wait_s and num_starting == 0
        by_age = current + max(1, current // 2) if late else 0
        return max(by_depth, at_work, by_age)
