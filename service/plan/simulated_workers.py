"""Workers in simulated time, with the real consumers of the queue: an executor's jobs in hand, a scorer's batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from plaudit.grading import Verdict
from sandbox.types import Report
from service.jobs import LANES, Executed, Kind, Scored, ScoreTask
from service.plan.capacity import Workload
from service.plan.costs import Costs
from service.plan.host_cpu import Action, Events, HostCpu, Server
from service.queue.consumer import Consumer, FinishedJob, Lease
from service.queue.protocol import now_ms
from service.scoring.scheduler import MAX_ENCODING, MAX_HELD_BATCHES, Scheduler, SequenceGroup
from service.worker.batch import HAND_BACK_AFTER_S, SEND_AFTER_S, JobPace

PASSED = Executed(Report(Verdict.PASSED, 1, 1, (), "bytes", "strong"), "toolchain")


class SimulatedService(Protocol):
    """What a worker needs of the simulation (`simulator.Simulation`)."""

    workload: Workload
    costs: Costs
    events: Events
    brokers: list[Server]
    max_batch_tokens: int
    idle: dict[str, list[deque[SimulatedWorker]]]

    def redis_s(self, kind: str, num_jobs: int) -> float: ...

    def wake(self, kind: str, shard: int, num_jobs: int) -> None: ...

    def answered(self, shard: int, jobs: Sequence[str], done: Action) -> None: ...


class SimulatedWorker(ABC):
    """What both kinds have in common: they take jobs of the shards that they serve, and wait where there are none.

    Args:
        simulation: whose time and queues they use.
        consumers: by shard.
        host: on whose cores they compute.
    """

    kind: Kind

    def __init__(self, simulation: SimulatedService, consumers: Mapping[int, Consumer], host: HostCpu) -> None:
        self.simulation = simulation
        self.consumers = dict(consumers)
        self.host = host
        self.busy_s = 0.0
        self.is_waiting = False
        self._next_shard = 0

    def wait(self) -> None:
        """Until a job arrives at one of its shards."""
        self.is_waiting = True
        for shard in self.consumers:
            self.simulation.idle[self.kind][shard].append(self)

    @abstractmethod
    def capacity(self) -> int:
        """How many jobs it takes now."""

    @abstractmethod
    def begin(self, shard: int, leases: list[Lease]) -> None:
        """Work on these."""

    def take(self) -> None:
        """Ask its shards, each time another one first, until one has jobs."""
        self.is_waiting = False
        shards = list(self.consumers)
        order = [shards[(self._next_shard + at) % len(shards)] for at in range(len(shards))]
        self._next_shard = (self._next_shard + 1) % len(shards)
        self._ask(order)

    def _ask(self, order: list[int]) -> None:
        shard, *others = order

        def asked() -> None:
            leases = self.consumers[shard].take(self.capacity(), 0.0, share=self.kind == "execute")
            if leases:
                self.begin(shard, leases)
            elif others:
                self._ask(others)
            else:
                self.nothing_found()

        self.simulation.brokers[shard].work(self.simulation.redis_s(self.kind, max(1, self.capacity())), asked)

    def nothing_found(self) -> None:
        self.wait()


class SimulatedExecutor(SimulatedWorker):
    """One job after the other of those in hand; `service.worker.batch` in simulated time."""

    kind: Kind = "execute"

    def __init__(self, simulation: SimulatedService, consumers: Mapping[int, Consumer], host: HostCpu) -> None:
        super().__init__(simulation, consumers, host)
        self.pace = JobPace()
        self.shard = 0
        self.waiting: deque[Lease] = deque()
        self.finished: list[Lease] = []
        self.finished_at_s = 0.0
        self.number = 0  # of the job that runs

    def capacity(self) -> int:
        return self.pace.capacity()

    def begin(self, shard: int, leases: list[Lease]) -> None:
        self.shard = shard
        self.waiting.extend(leases)
        self._next()

    def _next(self) -> None:
        if not self.waiting:
            self.take()
            return
        lease, began_s = self.waiting.popleft(), self.simulation.events.now_s
        self.number += 1
        number, workload = self.number, self.simulation.workload
        cost = self.simulation.costs.program(workload.kind)
        cpu_s = cost.cpu_ms(round(workload.runs_per_program), workload.extra_test_ms) / 1000
        wait_s = cost.wait_ms(round(workload.runs_per_program)) / 1000
        if self.waiting:
            self.simulation.events.after(HAND_BACK_AFTER_S, lambda: self._hand_back(number))

        def computed() -> None:
            self.simulation.events.after(wait_s, lambda: self._ended(lease, began_s))

        self.host.compute(cpu_s, computed)

    def _hand_back(self, number: int) -> None:
        """The job that runs takes long: those behind it go to other executors."""
        if number != self.number or not self.waiting:
            return
        leases, consumer = list(self.waiting), self.consumers[self.shard]
        self.waiting.clear()
        consumer.hand_back(leases)
        self.simulation.wake(self.kind, self.shard, len(leases))

    def _ended(self, lease: Lease, began_s: float) -> None:
        now_s = self.simulation.events.now_s
        self.busy_s += now_s - began_s
        self.pace.took(now_s - began_s)
        if not self.finished:
            self.finished_at_s = now_s
        self.finished.append(lease)
        if not self.waiting or now_s - self.finished_at_s >= SEND_AFTER_S:
            self._send()
        else:
            self._next()

    def _send(self) -> None:
        leases, self.finished, shard = self.finished, [], self.shard

        def sent() -> None:
            self.consumers[shard].finish_all([FinishedJob(lease, PASSED, 0, 1.0, now_ms()) for lease in leases])
            self.simulation.answered(shard, [lease.id for lease in leases], self._next)

        self.simulation.brokers[shard].work(self.simulation.redis_s(self.kind, len(leases)), sent)


@dataclass(frozen=True, slots=True)
class SimulatedSequence:
    """A prompt and a completion, of which only the lengths matter."""

    ids: tuple[int, ...]
    prompt_tokens: int


class SimulatedScorer(SimulatedWorker):
    """A device that computes the batches of the real scheduler, one after the other."""

    kind: Kind = "score"

    def __init__(self, simulation: SimulatedService, consumers: Mapping[int, Consumer], host: HostCpu) -> None:
        super().__init__(simulation, consumers, host)
        self.scheduler: Scheduler[SimulatedSequence] = Scheduler(simulation.max_batch_tokens)
        self.leases: dict[str, tuple[int, Lease]] = {}
        self.num_prompts = 0
        self.is_computing = False

    def capacity(self) -> int:
        return MAX_ENCODING

    def begin(self, shard: int, leases: list[Lease]) -> None:
        workload = self.simulation.workload
        for lease in leases:
            assert isinstance(lease.task, ScoreTask)
            self.num_prompts += 1  # prompts differ in their first token
            prompt = (self.num_prompts, *range(1, max(1, workload.prompt_tokens)))
            completion = tuple(range(workload.completion_tokens))
            sequences = [SimulatedSequence(prompt + completion, len(prompt)) for _ in lease.task.completions]
            key = f"{shard}/{lease.key}"
            self.leases[key] = shard, lease
            self.scheduler.add(SequenceGroup(key, sequences, LANES.index(lease.lane), lease.deadline_ms))
        self._step()

    def nothing_found(self) -> None:
        if len(self.scheduler):
            self._step()
        else:
            self.wait()

    def _more(self) -> None:
        """Between two batches: take what may be held ahead, then compute."""
        lane = LANES.index("normal")
        if self.scheduler.waiting_tokens(lane) < MAX_HELD_BATCHES * self.scheduler.max_batch_tokens:
            self.take()
        else:
            self._step()

    def _step(self) -> None:
        batch, score = self.scheduler.schedule(), self.simulation.costs.score
        assert score is not None
        seconds = batch.tokens / score.tokens_per_s

        def computed() -> None:
            self.busy_s += seconds
            done = self.scheduler.finish(batch, [0.0] * len(batch.sequences))
            self._answer([self.leases.pop(group.key) for group in done])

        self.host.compute(seconds, computed)

    def _answer(self, done: list[tuple[int, Lease]]) -> None:
        if not done:
            self._more()
            return
        shard = done[0][0]
        leases = [lease for at, lease in done if at == shard]
        others = [pair for pair in done if pair[0] != shard]

        def sent() -> None:
            finished = [
                FinishedJob(lease, Scored("", [0.0], [1], [False], [None], [None]), 0, 1.0, now_ms())
                for lease in leases
            ]
            self.consumers[shard].finish_all(finished)
            self.simulation.answered(shard, [lease.id for lease in leases], lambda: self._answer(others))

        self.simulation.brokers[shard].work(self.simulation.redis_s(self.kind, len(leases)), sent)
