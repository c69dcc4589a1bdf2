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

from plaudit.errors import BrokerUnavailable, Overloaded, WouldMissDeadline
from service import metrics
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.reply_router import ReplyRouter
from service.api.dispatch.request_context import RequestContext
from service.jobs import Failed, Job, JobState, Reply
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Bound, Queue, Remembered
from service.settings import Settings

log = logging.getLogger("plaudit.submission")

MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 1.0, 60.0
UNBOUNDED = Bound(2**31, float("inf"))


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """One per API process: the queue, who waits for its replies, and what is known of the workers."""

    queue: Queue
    reply_router: ReplyRouter
    fleet: Fleet
    settings: Settings

    def submission(self, context: RequestContext) -> Submission:
        return Submission(self, context)


class Submission:
    """One request's jobs, in the queue and out of it. An async context manager."""

    def __init__(self, dispatcher: Dispatcher, context: RequestContext) -> None:
        self.dispatcher = dispatcher
        self.queue = dispatcher.queue
        self.reply_router = dispatcher.reply_router
        self.fleet = dispatcher.fleet
        self.context = context
        self._futures: dict[str, asyncio.Future[Reply]] = {}
        self._num_readers: Counter[str] = Counter()  # by job: items of the request that wait for it now

    async def submit(self, jobs: Iterable[Job], *, use_cache: bool = True, unbounded: bool = False) -> None:
        """Admit these jobs.

        Args:
            jobs: of any queues.
            use_cache: whether a finished job's reply may be answered again.
            unbounded: whether to ignore the queue's bounds and the deadline.

        Raises:
            Overloaded: when a queue is full. Leaving takes back what was admitted to another one.
            WouldMissDeadline: when a queue's expected wait exceeds the deadline.
            RevisionMoved: when a queue admits jobs of another revision.
        """
        by_queue: dict[str, dict[str, Job]] = {}
        for job in jobs:
            by_queue.setdefault(job.queue, {})[job.id] = job
        for queue, queue_jobs in by_queue.items():
            await self._submit(queue, queue_jobs.values(), use_cache=use_cache, unbounded=unbounded)

    async def submit_unless_cached(self, jobs: Sequence[Job], keys: Sequence[str]) -> list[bytes | None] | None:
        """Admit these jobs of one queue if nothing is cached under these keys, in one step.

        Returns:
            None if the jobs are admitted. Otherwise none of them is, and this is the frame under each key.
        """
        by_id = {job.id: job for job in jobs}
        if not by_id:
            return None
        try:
            await self._submit(jobs[0].queue, by_id.values(), unless=keys)
        except Remembered as remembered:
            return remembered.frames
        return None

    async def _submit(
        self,
        queue: str,
        jobs: Iterable[Job],
        *,
        use_cache: bool = True,
        unbounded: bool = False,
        unless: Sequence[str] = (),
    ) -> None:
        new_jobs = [job for job in jobs if job.id not in self._futures]
        bound = UNBOUNDED if unbounded else self._bound(queue)
        if not unbounded:
            await self._check_deadline(queue)
        for job in new_jobs:
            self._futures[job.id] = self.reply_router.wait_for(job.id, queue)
        try:
            by_token = {self.reply_router.token(job.id): job for job in new_jobs}
            finished = await self.queue.submit(by_token, bound, use_cache=use_cache, unless=unless)
        except Remembered:
            self.reply_router.release({job.id: self._futures.pop(job.id) for job in new_jobs})
            raise
        except Overloaded as error:
            retry_after_s = error.retry_after_s or self._drain_time_s(queue, sum(job.cost for job in new_jobs))
            metrics.rejected.labels("memory" if error.retry_after_s else "queue_full").inc()
            raise Overloaded(error.detail, retry_after_s=retry_after_s) from error
        self.reply_router.submitted(job.id for job in new_jobs)
        for job_id, reply in finished.items():  # its own id may be that of the same job under another toolchain
            metrics.cache_hits.labels("execute" if queue == EXECUTE_QUEUE else "score").inc()
            self.reply_router.deliver(Reply(job_id, reply.body, worker="cache"))

    async def reply(self, job: str) -> Reply:
        """The job's ending, or `timeout_queue` once the request's deadline passes."""
        future = self._futures[job]
        self._num_readers[job] += 1
        try:
            done, _ = await asyncio.wait([future], timeout=max(0.0, self.context.left_s))
        finally:
            self._num_readers[job] -= 1
        if not done:
            return Reply(job, Failed(JobState.TIMEOUT, "deadline", "not done by the deadline", True))
        reply = future.result()
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
        futures = {job: self._futures.pop(job) for job in list(jobs) if job in self._futures}
        for queue, orphans in self.reply_router.release(futures).items():
            try:
                await self.queue.leave(queue, orphans)
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
        settings = self.dispatcher.settings
        if queue == EXECUTE_QUEUE:
            return Bound(settings.max_queued_execute, settings.max_queued_execute_cpu_s)
        return Bound(settings.max_queued_score, settings.max_queued_score_tokens)

    def _drain_time_s(self, queue: str, cost: float) -> float:
        """How long until so much of the tenant's work is done, at the measured rate."""
        drain_s = self.fleet.queue_monitor(queue).drain_s(self.context.tenant, cost)
        return MIN_RETRY_AFTER_S if drain_s is None else _as_retry_after_s(drain_s)

    def would_miss_deadline(self, queue: str) -> bool:
        """Whether the tenant's wait in this queue, as last measured, exceeds the request's deadline."""
        wait_s = self.fleet.queue_monitor(queue).wait_s(self.context.tenant)
        return wait_s is not None and wait_s > self.context.left_s

    async def _check_deadline(self, queue: str) -> None:
        if not self.would_miss_deadline(queue):
            return
        monitor = self.fleet.queue_monitor(queue)
        # The queue was measured up to a second ago and may be shorter by now: measure before rejecting.
        monitor.load = replace(await self.queue.load(queue), drained=monitor.load.drained)
        wait_s = monitor.wait_s(self.context.tenant)
        if wait_s is not None and wait_s > self.context.left_s:
            metrics.rejected.labels("deadline").inc()
            raise WouldMissDeadline(
                f"queue {queue} needs about {wait_s:.1f} s, and {max(0.0, self.context.left_s):.1f} s are left",
                retry_after_s=_as_retry_after_s(wait_s - self.context.left_s),
            )


def _as_retry_after_s(seconds: float) -> float:
    return min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, seconds))
