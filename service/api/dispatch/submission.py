"""The jobs of one request, from admission to the last reply.

- `async with` it. Leaving it (by an answer, an error or a cancelled caller) takes back every job that is unfinished and
  that no other request waits for.
- Admission is all or none per queue. A full queue or a deadline that cannot be met is an error at once, with the time
  after which to come back; it is never a wait. Bounds and expected waits are the tenant's own: another's backlog shuts
  nobody out.
- `Dispatcher` holds what every submission of this process needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from plaudit.errors import BrokerUnavailable, NoWorker, Overloaded, PlauditError, WouldMissDeadline
from service import metrics
from service.api.dispatch import trail
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.reply_router import ReplyRouter
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.dispatch.trail import Trail
from service.jobs import Failed, Job, JobState, Reply
from service.queue.keys import EXECUTE_QUEUE, kind_of_queue
from service.queue.producer import Bound, Remembered
from service.settings import Settings

log = logging.getLogger("plaudit.submission")

MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 1.0, 60.0
UNBOUNDED = Bound(2**31, float("inf"))


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """One per API process: the queues, who waits for their replies, and what is known of the workers.

    `reply_routers`: one per shard, in the order of `shards`, as are the fleet's monitors.
    """

    shards: Shards
    reply_routers: Sequence[ReplyRouter]
    fleet: Fleet
    settings: Settings

    def submission(self, context: RequestContext) -> Submission:
        return Submission(self, context)


class Submission:
    """One request's jobs, in the queue and out of it. An async context manager."""

    def __init__(self, dispatcher: Dispatcher, context: RequestContext) -> None:
        self.dispatcher = dispatcher
        self.shards = dispatcher.shards
        self.reply_routers = dispatcher.reply_routers
        self.fleet = dispatcher.fleet
        self.context = context
        self.trail: Trail = trail.current()
        self._futures: dict[str, asyncio.Future[Reply]] = {}
        self._shard_of: dict[str, int] = {}  # by job
        self._lost: dict[str, Reply] = {}  # jobs that could not be given to their shard, and why
        self._num_readers: Counter[str] = Counter()  # by job: items of the request that wait for it now

    async def submit(self, jobs: Iterable[Job], *, use_cache: bool = True, unbounded: bool = False) -> None:
        """Admit these jobs.

        Where a request has jobs of several shards, those of a shard that does not answer, or that has no worker for
        them, are lost (`reply` says why), and the others go on.

        Args:
            jobs: of any queues and shards.
            use_cache: whether a finished job's reply may be answered again.
            unbounded: whether to ignore the queue's bounds and the deadline.

        Raises:
            Overloaded: when a queue is full. Leaving takes back what was admitted to another one.
            WouldMissDeadline: when a queue's expected wait exceeds the deadline.
            RevisionMoved: when a queue admits jobs of another revision.
            BrokerUnavailable, NoWorker: when no shard could be given its jobs.
        """
        by_shard: dict[int, dict[str, dict[str, Job]]] = {}
        for job in jobs:
            by_shard.setdefault(job.shard, {}).setdefault(job.queue, {})[job.id] = job

        async def submit_to(shard: int, by_queue: dict[str, dict[str, Job]]) -> None:
            for queue, queue_jobs in by_queue.items():
                await self._submit(shard, queue, queue_jobs.values(), use_cache=use_cache, unbounded=unbounded)

        if len(by_shard) == 1:
            await submit_to(*next(iter(by_shard.items())))
            return
        # None is cut off in the middle: leaving would not find what arrives later.
        outcomes = await asyncio.gather(*(submit_to(*pair) for pair in by_shard.items()), return_exceptions=True)
        away = {
            shard: outcome
            for shard, outcome in zip(by_shard, outcomes, strict=True)
            if isinstance(outcome, BrokerUnavailable | NoWorker)
        }
        others = [outcome for outcome in outcomes if outcome is not None and outcome not in away.values()]
        if others or len(away) == len(by_shard) > 0:
            raise (others or list(away.values()))[0]
        for shard, error in away.items():
            await self._lose(shard, [job for jobs in by_shard[shard].values() for job in jobs.values()], error)

    async def _lose(self, shard: int, jobs: Iterable[Job], error: PlauditError) -> None:
        """Fail the jobs that a shard could not be given, but those that were given to another shard as well."""
        failed = Failed(JobState.FAILED, error.code, error.detail, error.retryable)
        lost = [job for job in jobs if self._shard_of.get(job.id, shard) == shard]
        for job in lost:
            metrics.infra_errors.labels(job.kind, error.code).inc()
            self._lost[job.id] = Reply(job.id, failed)
        await self.release(job.id for job in lost)

    async def submit_unless_cached(self, jobs: Sequence[Job], keys: Sequence[str]) -> list[bytes | None] | None:
        """Admit these jobs of one queue and shard if nothing is cached under these keys, in one step.

        Returns:
            None if the jobs are admitted. Otherwise none of them is, and this is the frame under each key.
        """
        by_id = {job.id: job for job in jobs}
        if not by_id:
            return None
        try:
            await self._submit(jobs[0].shard, jobs[0].queue, by_id.values(), unless=keys)
        except Remembered as remembered:
            return remembered.frames
        return None

    async def _submit(
        self,
        shard: int,
        queue: str,
        jobs: Iterable[Job],
        *,
        use_cache: bool = True,
        unbounded: bool = False,
        unless: Sequence[str] = (),
    ) -> None:
        new_jobs = [job for job in jobs if job.id not in self._futures]
        bound = UNBOUNDED if unbounded else self._bound(queue)
        if len(self.shards) > 1:
            self._require_shard(shard, queue)
        if not unbounded:
            await self._check_deadline(shard, queue)
        reply_router = self.reply_routers[shard]
        for job in new_jobs:
            self._futures[job.id] = reply_router.wait_for(job.id, queue)
            self._shard_of[job.id] = shard
        try:
            by_token = {reply_router.token(job.id): job for job in new_jobs}
            finished = await self.shards.queues[shard].submit(by_token, bound, use_cache=use_cache, unless=unless)
        except Remembered:
            reply_router.release({job.id: self._futures.pop(job.id) for job in new_jobs})
            raise
        except Overloaded as error:
            cost = sum(job.cost for job in new_jobs)
            retry_after_s = error.retry_after_s or self._drain_time_s(shard, queue, cost)
            metrics.rejected.labels("memory" if error.retry_after_s else "queue_full").inc()
            raise Overloaded(error.detail, retry_after_s=retry_after_s) from error
        reply_router.submitted(job.id for job in new_jobs)
        self.trail.submitted(len(new_jobs))
        for job_id, reply in finished.items():  # its own id may be that of the same job under another toolchain
            metrics.cache_hits.labels("execute" if queue == EXECUTE_QUEUE else "score").inc()
            reply_router.deliver(Reply(job_id, reply.body, worker="cache"))

    def _require_shard(self, shard: int, queue: str) -> None:
        """Raises BrokerUnavailable or NoWorker where one shard of several cannot do jobs of a queue."""
        monitor, name = self.fleet.monitors[shard], self.shards.names[shard]
        if not monitor.broker:
            raise BrokerUnavailable(f"shard {name} of the queue does not answer", retry_after_s=1.0)
        if not monitor.of_kind(kind_of_queue(queue)):
            raise NoWorker(f"no worker of shard {name} is alive", retry_after_s=2.0)

    async def reply(self, job: str) -> Reply:
        """The job's ending, or `timeout_queue` once the request's deadline passes."""
        if job in self._lost:
            return self._lost[job]
        future = self._futures[job]
        self._num_readers[job] += 1
        try:
            done, _ = await asyncio.wait([future], timeout=max(0.0, self.context.left_s))
        finally:
            self._num_readers[job] -= 1
        if not done:
            return Reply(job, Failed(JobState.TIMEOUT, "deadline", "not done by the deadline", True))
        reply = future.result()
        self.trail.replied(reply)
        if reply.worker != "cache":
            self.context.add_timing(reply.queue_ms, reply.compute_ms)
        return reply

    async def replies(self, jobs: Iterable[str]) -> dict[str, Reply]:
        """The endings of all, by job."""
        job_ids = list(jobs)
        return dict(zip(job_ids, await asyncio.gather(*map(self.reply, job_ids)), strict=True))

    async def replies_until(self, jobs: Iterable[str], is_enough: Callable[[Reply], bool]) -> dict[str, Reply]:
        """The endings of all until one `is_enough`; the other jobs are taken back and end as `cancelled`."""
        waiting = {asyncio.ensure_future(self.reply(job)): job for job in jobs}
        replies: dict[str, Reply] = {}
        try:
            while waiting and not any(map(is_enough, replies.values())):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                replies.update({waiting.pop(task): task.result() for task in done})
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await self.release(job for job in waiting.values() if not self._num_readers[job])  # another item may need it
        stopped = Failed(JobState.CANCELLED, "early_stop", "another completion of the group passed everything", False)
        return replies | {job: Reply(job, stopped) for job in waiting.values()}

    async def release(self, jobs: Iterable[str]) -> None:
        """Stop waiting for these jobs now."""
        by_shard: dict[int, dict[str, asyncio.Future[Reply]]] = {}
        for job in list(jobs):
            if job in self._futures:
                by_shard.setdefault(self._shard_of[job], {})[job] = self._futures.pop(job)
        for shard, futures in by_shard.items():
            for queue, orphans in self.reply_routers[shard].release(futures).items():
                try:
                    await self.shards.queues[shard].leave(queue, orphans)
                except BrokerUnavailable as error:
                    log.warning("jobs are not taken back, their deadline will end them: %s", error.detail)

    async def __aenter__(self) -> Submission:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Shielded: a caller that is being cancelled must still take its jobs out of the queue.
        await asyncio.shield(self.release(list(self._futures)))

    def _bound(self, queue: str) -> Bound:
        """What one shard may hold: its part of the bounds."""
        settings, num_shards = self.dispatcher.settings, len(self.shards)
        if queue == EXECUTE_QUEUE:
            return Bound(-(-settings.max_queued_execute // num_shards), settings.max_queued_execute_cpu_s / num_shards)
        return Bound(-(-settings.max_queued_score // num_shards), settings.max_queued_score_tokens / num_shards)

    def _drain_time_s(self, shard: int, queue: str, cost: float) -> float:
        """How long until so much of the tenant's work is done, at the measured rate."""
        drain_s = self.fleet.monitors[shard].queue_monitor(queue).drain_s(self.context.tenant, cost)
        return MIN_RETRY_AFTER_S if drain_s is None else _as_retry_after_s(drain_s)

    def would_miss_deadline(self, shard: int, queue: str) -> bool:
        """Whether the tenant's wait in this queue, as last measured, exceeds the request's deadline."""
        wait_s = self.fleet.monitors[shard].queue_monitor(queue).wait_s(self.context.tenant)
        return wait_s is not None and wait_s > self.context.left_s

    async def _check_deadline(self, shard: int, queue: str) -> None:
        if not self.would_miss_deadline(shard, queue):
            return
        monitor = self.fleet.monitors[shard].queue_monitor(queue)
        # The queue was measured up to a second ago and may be shorter by now: measure before rejecting.
        monitor.load = replace(await self.shards.queues[shard].load(queue), drained=monitor.load.drained)
        wait_s = monitor.wait_s(self.context.tenant)
        if wait_s is not None and wait_s > self.context.left_s:
            metrics.rejected.labels("deadline").inc()
            raise WouldMissDeadline(
                f"queue {queue} needs about {wait_s:.1f} s, and {max(0.0, self.context.left_s):.1f} s are left",
                retry_after_s=_as_retry_after_s(wait_s - self.context.left_s),
            )


def _as_retry_after_s(seconds: float) -> float:
    return min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, seconds))
