"""From costs and a workload, by arithmetic: how many processes of each kind, how busy each part is, what is next.

Every part is a queue with a number of servers. Work arrives as a burst per training step and is to be done within
`step_s`. A part that is busy for more than `max_utilisation` of that time has no room for uneven bursts, so the number
of servers is chosen to stay below it. The next bottleneck is the part that would pass it first if rollouts grew and
nothing else were started.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from plaudit.errors import UsageError
from sandbox.types import Limits
from service.plan.costs import Costs
from service.settings import Settings

HEADROOM = 2  # Redis is given twice what its keys take: the budgets shrink caches long before it is full


@dataclass(frozen=True, slots=True)
class Workload:
    """One training step.

    Attributes:
        rollouts: programs per step.
        group: rollouts per prompt.
        tests: per program.
        kind: of the programs, one of those that were measured.
        extra_test_ms: CPU time of a program's own work per test, beyond a trivial one.
        passing: share of the programs that run all of their tests; the others stop at the first failure.
        prompt_tokens, completion_tokens: of a rollout; 0 of both: nothing is scored.
        step_s: in which the rewards of a step are to be there.
        cache_s: how long results are kept in Redis.
    """

    rollouts: int
    group: int = 8
    tests: int = 20
    kind: str = "python-stdio"
    extra_test_ms: float = 10.0
    passing: float = 1.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    step_s: float = 60.0
    cache_s: float = 3600.0

    @property
    def groups(self) -> int:
        return math.ceil(self.rollouts / self.group)

    @property
    def scored_tokens(self) -> int:
        """Per step, each prompt counted once per group."""
        if not self.completion_tokens:
            return 0
        return self.rollouts * self.completion_tokens + self.groups * self.prompt_tokens

    @property
    def runs_per_program(self) -> float:
        """Tests that are run per program: of one that fails, half of them on average."""
        return self.tests * (self.passing + (1.0 - self.passing) / 2)


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of process, or a device.

    Attributes:
        needed_s: seconds of one such server per step, for the workload.
        fixed_share: of a server's time that goes without work, such as heartbeats of workers.
        count: how many are to be started.
    """

    name: str
    needed_s: float
    fixed_share: float
    count: int
    step_s: float

    @property
    def utilisation(self) -> float:
        """Share of the step for which each is busy."""
        return self.needed_s / (self.count * self.step_s) + self.fixed_share if self.count else 0.0

    def rollouts_at(self, limit: float, rollouts: int) -> float:
        """Rollouts per step at which it would be busy for this share."""
        if self.needed_s <= 0:
            return math.inf
        return rollouts * max(0.0, limit - self.fixed_share) * self.count * self.step_s / self.needed_s


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """What to start for a workload, and what it costs.

    Attributes:
        parts: executors, API processes, shards and scorers.
        cores: that all processes of a CPU together need, at these numbers.
        cpu_s, device_s: used per step.
        redis_bytes: that the keys take, in all shards together.
        bytes_per_s: between Redis and its clients while a step is worked on.
        commands_per_s: of Redis.
    """

    workload: Workload
    parts: tuple[Part, ...]
    cores: int
    cpu_s: float
    device_s: float
    redis_bytes: float
    bytes_per_s: float
    commands_per_s: float
    max_utilisation: float

    @property
    def next_bottleneck(self) -> tuple[Part, float]:
        """The part that is the first to be too busy, and at how many rollouts per step."""
        limits = [(part.rollouts_at(self.max_utilisation, self.workload.rollouts), part) for part in self.parts]
        rollouts, part = min(limits, key=lambda pair: pair[0])
        return part, rollouts

    @property
    def bounds(self) -> dict[str, int]:
        """The settings whose default would reject a step that is sent at once, and what each has to be."""
        load = self.workload
        needed = {
            "max_queued_execute": load.rollouts,
            "max_queued_execute_cpu_s": math.ceil(load.rollouts * load.tests * Limits().cpu_s),
            "max_queued_score": load.groups if load.scored_tokens else 0,
            "max_queued_score_tokens": load.scored_tokens,
        }
        defaults = Settings()
        # Each shard has its part of a bound, and groups are spread by chance.
        spread = 1.0 if self.count("shards") == 1 else 1.5
        return {
            name: math.ceil(spread * value)
            for name, value in needed.items()
            if spread * value > getattr(defaults, name)
        }

    def count(self, name: str) -> int:
        return next((part.count for part in self.parts if part.name == name), 0)

    def as_document(self) -> dict[str, object]:
        """For `--json`."""
        part, rollouts = self.next_bottleneck
        return {
            "workload": asdict(self.workload),
            "start": {one.name: one.count for one in self.parts},
            "parts": [
                {"name": one.name, "count": one.count, "busy_s": one.needed_s, "utilisation": one.utilisation}
                for one in self.parts
            ],
            "cores": self.cores,
            "cpu_s_per_step": self.cpu_s,
            "device_s_per_step": self.device_s,
            "redis_bytes": self.redis_bytes,
            "redis_commands_per_s": self.commands_per_s,
            "redis_bytes_per_s": self.bytes_per_s,
            "settings": self.bounds,
            "next_bottleneck": {"part": part.name, "rollouts": math.floor(rollouts)},
        }


def plan(workload: Workload, costs: Costs, *, max_utilisation: float = 0.7) -> CapacityPlan:
    """What to start for a workload.

    Raises:
        UsageError: the kind was not measured, or scores are to be computed and no scorer was measured.
    """
    if workload.scored_tokens and costs.score is None:
        raise UsageError("--completion-tokens: these costs have no scorer; measure with --scorers 1")
    program, queue, num = costs.program(workload.kind), costs.queue, workload.rollouts
    room_s = max_utilisation * workload.step_s
    cpu_s = num * program.cpu_ms(round(workload.runs_per_program), workload.extra_test_ms) / 1000
    executing_s = cpu_s + num * program.wait_ms(round(workload.runs_per_program)) / 1000
    executors = max(
        1, math.ceil(executing_s / (room_s - queue.idle_cpu_ms.get("execute", 0.0) / 1000 * workload.step_s))
    )
    api_s = (num * queue.api_program_cpu_ms + workload.groups * queue.api_request_cpu_ms) / 1000
    redis_s = (num * queue.redis_program_cpu_ms + workload.groups * queue.redis_request_cpu_ms) / 1000
    device_s, scorers = 0.0, 0
    if workload.scored_tokens:
        assert costs.score is not None
        device_s = workload.scored_tokens / costs.score.tokens_per_s
        api_s += workload.groups * costs.score.api_group_cpu_ms / 1000
        redis_s += workload.groups * costs.score.redis_group_cpu_ms / 1000
        scorers = max(1, math.ceil(device_s / room_s))
    workers = executors + scorers
    idle = queue.idle_cpu_ms
    # Every API process reads every announcement.
    api_share = (idle.get("api", 0.0) + workers * queue.api_worker_cpu_ms) / 1000
    if api_share >= max_utilisation:
        raise UsageError(
            f"{workers} workers are more than one API process can watch ({100 * api_share:.0f} % of a core); split the "
            "load over several deployments"
        )
    apis = max(1, math.ceil(api_s / (room_s - api_share * workload.step_s)))
    idle_s = (idle.get("redis", 0.0) + workers * queue.redis_worker_cpu_ms) / 1000 * workload.step_s
    shards = max(1, math.ceil((redis_s + idle_s) / room_s))
    parts = [
        Part("executors", executing_s, idle.get("execute", 0.0) / 1000, executors, workload.step_s),
        Part("apis", api_s, api_share, apis, workload.step_s),
        Part("shards", redis_s, idle_s / workload.step_s / shards, shards, workload.step_s),
    ]
    if scorers:
        parts.append(Part("scorers", device_s, 0.0, scorers, workload.step_s))
    kept = num * queue.bytes_kept * max(1.0, workload.cache_s / workload.step_s)
    return CapacityPlan(
        workload,
        tuple(parts),
        executors + apis + shards + scorers,  # a scorer keeps a core busy, whatever its device
        cpu_s + api_s + redis_s + idle_s + api_share * apis * workload.step_s,
        device_s,
        HEADROOM * kept,
        num * (queue.bytes_in + queue.bytes_out) / workload.step_s,
        num * queue.commands / workload.step_s,
        max_utilisation,
    )
