"""A deployment in simulated time, in which the real queue decides who gets what.

What is real: the scripts of the queue on a real Redis, so admission, fair queueing, shares and handing back (`Queue`,
`Consumer`); where a group is placed (`Shards`); which shards a worker serves (`deal`); how many jobs an executor takes
(`JobPace`); which sequences are scored together (`Scheduler`). What is simulated: time. A piece of work takes the CPU
time that was measured for it (`costs`), on the cores that its host has left; a Redis does one thing after the other.

Not simulated: networks, crashes, leases that run out, caches (every job is new) and what an API process does once a
second. The shards of a simulation are namespaces of one Redis, which changes nothing for their scripts.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sandbox.types import Limits
from service.api.dispatch.shards import Shards
from service.jobs import ExecuteTask, Job, ScoreTask, encode
from service.plan.capacity import CapacityPlan, Workload
from service.plan.costs import Costs
from service.plan.host_cpu import Action, Events, HostCpu, Server
from service.plan.simulated_workers import SimulatedExecutor, SimulatedScorer, SimulatedWorker
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.producer import Bound, Queue
from service.queue.protocol import now_ms
from service.queue.shards import deal

MODEL, REVISION, TOOLCHAIN = "default", "revision", "toolchain"
FAR_MS = 3_600_000  # deadlines are of the real clock, and nothing is to be late for it
STEPS = 3  # of a job in Redis that cost about the same: admission, lease, ending


@dataclass(frozen=True, slots=True)
class Deployment:
    """Processes and hosts.

    Attributes:
        cores: of the one host on which everything runs; None: every process has a core of its own, but executors share
            hosts of `cores_per_host`.
        clients: processes that send the requests from the same host; 0: they are elsewhere, and cost nothing here.
        executors_per_core: on hosts of their own.
    """

    executors: int
    apis: int = 1
    shards: int = 1
    scorers: int = 0
    cores: float | None = None
    clients: int = 0
    cores_per_host: int = 64
    executors_per_core: float = 1.0

    @classmethod
    def of(cls, plan: CapacityPlan) -> Deployment:
        """What a plan says to start."""
        return cls(plan.count("executors"), plan.count("apis"), plan.count("shards"), plan.count("scorers"))


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rollouts of one tenant that arrive at one moment, each group of them as a request."""

    tenant: str
    rollouts: int
    moment_s: float = 0.0


@dataclass(slots=True)
class SimulatedRequest:
    """One group on its way through the service."""

    tenant: str
    api: int
    began_s: float
    left: int
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation came to.

    Attributes:
        makespan_s: from the first arrival to the last answer.
        p50_s, p99_s: of a request.
        busy: share of the time for which a process of each kind computed, the busiest of its kind.
        cpu_s: that was used in all.
        num_jobs: answered, each once.
        max_depth: jobs that waited or ran at once, on one shard.
        ended_s: by tenant, when its last request was answered.
    """

    makespan_s: float
    p50_s: float
    p99_s: float
    busy: dict[str, float]
    cpu_s: float
    num_jobs: int
    max_depth: int
    ended_s: dict[str, float]


@dataclass
class Simulation:
    """One run. Its Redis is left as it was found.

    Args:
        deployment: what is started.
        workload: of which all groups are.
        costs: of each piece of work.
        redis_url: of any Redis; its data are not touched.
        max_batch_tokens: of a scorer.
    """

    deployment: Deployment
    workload: Workload
    costs: Costs
    redis_url: str
    max_batch_tokens: int = 16_384
    events: Events = field(default_factory=Events)

    def __post_init__(self) -> None:
        deployment, self.namespace = self.deployment, f"plan-{uuid.uuid4().hex[:12]}"
        one_host = None if deployment.cores is None else HostCpu(self.events, self._cores_for_work(deployment.cores))

        def host() -> HostCpu:
            return one_host or HostCpu(self.events, 1.0)

        self.apis = [Server(host()) for _ in range(deployment.apis)]
        self.clients = [Server(host()) for _ in range(deployment.clients)]
        self.brokers = [Server(host()) for _ in range(deployment.shards)]
        self.num_replies: Counter[str] = Counter()
        self.requests: list[SimulatedRequest] = []
        self.request_of: dict[str, SimulatedRequest] = {}
        self.max_depth = 0
        self.depth = [0] * deployment.shards
        self.idle: dict[str, list[deque[SimulatedWorker]]] = {
            kind: [deque() for _ in range(deployment.shards)] for kind in ("execute", "score")
        }
        self.client = connect(self.redis_url)
        executors_per_host = max(1, int(deployment.cores_per_host * deployment.executors_per_core))
        hosts = [
            one_host or HostCpu(self.events, deployment.cores_per_host)
            for _ in range(-(-deployment.executors // executors_per_host))
        ]
        self.workers: list[SimulatedWorker] = [
            SimulatedExecutor(self, self._consumers("execute", index, served), hosts[index // executors_per_host])
            for index, served in enumerate(deal(deployment.shards, deployment.executors))
        ]
        self.workers += [
            SimulatedScorer(self, self._consumers("score", index, served), host())
            for index, served in enumerate(deal(deployment.shards, deployment.scorers))
        ]

    def _cores_for_work(self, cores: float) -> float:
        """What the processes of one host leave of its cores, which they use without any work, too."""
        idle, deployment = self.costs.queue.idle_cpu_ms, self.deployment
        counts = {"api": deployment.apis, "execute": deployment.executors, "score": deployment.scorers}
        counts["redis"] = deployment.shards
        return max(0.05, cores - sum(count * idle.get(role, 0.0) for role, count in counts.items()) / 1000)

    def namespace_of(self, shard: int) -> str:
        return f"{self.namespace}-{shard}"

    def _consumers(self, kind: str, number: int, served: Sequence[int]) -> dict[int, Consumer]:
        queue = EXECUTE_QUEUE if kind == "execute" else queue_of_model(MODEL)
        count = self.deployment.executors if kind == "execute" else self.deployment.scorers
        consumers = {}
        for shard in served:
            name = f"{kind}-{number}"
            namespace = self.namespace_of(shard)
            consumer = Consumer(self.client, namespace, name, [queue], lease_s=FAR_MS / 1000, max_deliveries=3)
            consumer.num_workers = max(1, count // (self.deployment.shards if len(served) == 1 else 1))
            consumers[shard] = consumer
        return consumers

    def run(self, arrivals: Sequence[Arrival]) -> Simulated:
        """All of these, until the last answer. Raises RuntimeError if a job was not answered exactly once."""
        try:
            with asyncio.Runner() as runner:
                self._runner = runner
                client = connect_async(self.redis_url, max_connections=2)
                queues = {
                    str(shard): Queue(client, self.namespace_of(shard), "api") for shard in range(len(self.brokers))
                }
                self.shards = Shards(queues)
                served = {
                    (one.kind, shard): consumer for one in self.workers for shard, consumer in one.consumers.items()
                }
                for consumer in served.values():
                    consumer.ensure_groups()
                for worker in self.workers:
                    worker.wait()
                for number, arrival in enumerate(arrivals):
                    self.events.at(arrival.moment_s, functools.partial(self._arrive, arrival, number))
                self.events.run()
                replies = self._drain()
                runner.run(client.aclose())
            return self._outcome(replies, min(arrival.moment_s for arrival in arrivals))
        finally:
            keys = list(self.client.scan_iter(f"{self.namespace}-*", count=10_000))
            for first in range(0, len(keys), 1000):
                self.client.delete(*keys[first : first + 1000])
            self.client.close()

    def _drain(self) -> Counter[str]:
        """Every reply in Redis, by job."""
        found: Counter[str] = Counter()
        for queue in self.shards.queues:
            while self.client.exists(queue.channel):
                found.update(reply.job for reply in self._runner.run(queue.replies(0.1)))
        return found

    def _outcome(self, replies: Counter[str], began_s: float) -> Simulated:
        wrong = [job for job in self.request_of if replies[job] != 1]
        if wrong or any(request.ended_s is None for request in self.requests):
            raise RuntimeError(
                f"{len(wrong)} of {len(self.request_of)} jobs were not answered once, such as {wrong[:1]}"
            )
        took = sorted(request.ended_s - request.began_s for request in self.requests if request.ended_s is not None)
        ended_s: dict[str, float] = {}
        for request in self.requests:
            assert request.ended_s is not None
            ended_s[request.tenant] = max(ended_s.get(request.tenant, 0.0), request.ended_s)
        makespan_s = max(ended_s.values()) - began_s
        busy = {
            "apis": max(server.busy_s for server in self.apis) / makespan_s,
            "shards": max(server.busy_s for server in self.brokers) / makespan_s,
        }
        for kind in ("execute", "score"):
            seconds = [worker.busy_s for worker in self.workers if worker.kind == kind]
            if seconds:
                busy["executors" if kind == "execute" else "scorers"] = statistics.mean(seconds) / makespan_s
        hosts = {id(server.host): server.host for server in (*self.apis, *self.brokers, *self.clients)}
        hosts |= {id(worker.host): worker.host for worker in self.workers}
        return Simulated(
            makespan_s,
            took[len(took) // 2],
            took[int(0.99 * (len(took) - 1))],
            busy,
            sum(host.busy_s for host in hosts.values()),
            len(self.request_of),
            self.max_depth,
            ended_s,
        )

    # --- a request ---------------------------------------------------------------------------------------------------

    def _arrive(self, arrival: Arrival, number: int) -> None:
        group = self.workload.group
        for first in range(0, arrival.rollouts, group):
            self._request(arrival.tenant, f"{number}-{first}", min(group, arrival.rollouts - first))

    def _request(self, tenant: str, name: str, size: int) -> None:
        scored = bool(self.workload.scored_tokens)
        request = SimulatedRequest(tenant, len(self.requests) % len(self.apis), self.events.now_s, size + scored)
        self.requests.append(request)
        queue = self.costs.queue
        api_ms = (queue.api_request_cpu_ms + size * queue.api_program_cpu_ms) / 2
        if scored and self.costs.score is not None:
            api_ms += self.costs.score.api_group_cpu_ms / 2
        suite = f"suite-{self.namespace}-{name}"
        shard = self.shards.place("suite", suite)

        def submit() -> None:
            self._submit(request, shard, [self._program(tenant, suite, at, shard) for at in range(size)])
            if scored:
                self._submit(request, shard, [self._group(tenant, suite, size, shard)])

        client_ms = queue.client_request_cpu_ms + size * queue.client_program_cpu_ms
        self._client(request, client_ms, lambda: self.apis[request.api].work(api_ms / 1000, submit))

    def _client(self, request: SimulatedRequest, cpu_ms: float, done: Action) -> None:
        """Half of what a client needs for a request, if clients are on this host."""
        if self.clients:
            self.clients[request.api % len(self.clients)].work(cpu_ms / 2 / 1000, done)
        else:
            done()

    def _program(self, tenant: str, suite: str, at: int, shard: int) -> Job:
        task = encode(ExecuteTask("python", f"{suite}-{at}", suite, Limits(), toolchain=TOOLCHAIN))
        cost, frame = Limits().cpu_s * self.workload.tests, (suite, b'{"kind": "stdio", "suite": {"cases": []}}')
        deadline_ms = now_ms() + FAR_MS
        job = f"{suite}-{at}"
        return Job(job, "execute", EXECUTE_QUEUE, "normal", task, cost, deadline_ms, frame, tenant=tenant, shard=shard)

    def _group(self, tenant: str, suite: str, size: int, shard: int) -> Job:
        task = encode(ScoreTask(MODEL, REVISION, suite, [str(at) for at in range(size)]))
        cost = float(self.workload.prompt_tokens + size * self.workload.completion_tokens)
        queue, deadline_ms = queue_of_model(MODEL), now_ms() + FAR_MS
        job = f"{suite}-scores"
        return Job(job, "score", queue, "normal", task, cost, deadline_ms, tag=REVISION, tenant=tenant, shard=shard)

    def redis_s(self, kind: str, num_jobs: int) -> float:
        """What one of the steps of so many jobs takes of a Redis."""
        queue, score = self.costs.queue, self.costs.score
        per_job_ms = queue.redis_program_cpu_ms if kind == "execute" else (score.redis_group_cpu_ms if score else 0.0)
        return num_jobs * per_job_ms / STEPS / 1000

    def _submit(self, request: SimulatedRequest, shard: int, jobs: list[Job]) -> None:
        kind = jobs[0].kind
        for job in jobs:
            self.request_of[job.id] = request

        def admit() -> None:
            tokens = {uuid.uuid4().hex[:16]: job for job in jobs}
            finished = self._runner.run(self.shards.queues[shard].submit(tokens, Bound(2**31, float("inf"))))
            if finished:
                raise RuntimeError(f"jobs of a simulation were done before: {list(finished)[:1]}")
            self.depth[shard] += len(jobs)
            self.max_depth = max(self.max_depth, self.depth[shard])
            self.wake(kind, shard, len(jobs))

        fixed_s = self.costs.queue.redis_request_cpu_ms / 1000 if kind == "execute" else 0.0
        self.brokers[shard].work(fixed_s + self.redis_s(kind, len(jobs)), admit)

    def wake(self, kind: str, shard: int, num_jobs: int) -> None:
        """One worker that waits per job, those first that have waited longest."""
        waiting = self.idle[kind][shard]
        while num_jobs > 0 and waiting:
            worker = waiting.popleft()
            if worker.is_waiting:
                num_jobs -= 1
                worker.take()

    def answered(self, shard: int, jobs: Sequence[str], done: Action) -> None:
        """Replies of these jobs are in Redis: the API hands them out."""
        self.depth[shard] -= len(jobs)
        for job in jobs:
            request = self.request_of[job]
            self.apis[request.api].work(
                self.costs.queue.api_program_cpu_ms / 2 / 1000,
                functools.partial(self._reply, request),
            )
        done()

    def _reply(self, request: SimulatedRequest) -> None:
        request.left -= 1
        if request.left == 0:

            def end() -> None:
                self._client(request, self.costs.queue.client_request_cpu_ms, ended)

            def ended() -> None:
                request.ended_s = self.events.now_s

            self.apis[request.api].work(self.costs.queue.api_request_cpu_ms / 2 / 1000, end)


def simulate(plan: CapacityPlan, costs: Costs, redis_url: str) -> Simulated:
    """One step of a plan's workload, all groups at once, on what the plan says to start. Raises redis' own errors."""
    simulation = Simulation(Deployment.of(plan), plan.workload, costs, redis_url)
    return simulation.run([Arrival("trainer", plan.workload.rollouts)])
