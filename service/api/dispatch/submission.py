"""The jobs of one request, from admission to the last reply.

`async with` it: leaving (an answer, an error, a cancelled caller) takes back every job that is unfinished and that
nobody else waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType

from plaudit.errors import BrokerUnavailable, Overloaded, WouldMissDeadline
from service import metrics
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.reply_router import Mailbox
from service.api.dispatch.request_context import Context
from service.jobs import Failed, Job, JobState, Reply
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Bound, Queue, Remembered
from service.settings import Settings

log = logging.getLogger("plaudit.errand")

RETRY_AFTER_S = (1.0, 60.0)  # what we dare to promise, at least and at most


class Errand:
    def __init__(self, queue: Queue, mailbox: Mailbox, fleet: Fleet, settings: Settings, context: Context) -> None:
        self.queue = queue
        self.mailbox = mailbox
        self.fleet = fleet
        self.settings = settings
        self.context = context
        self._futures: dict[str, asyncio.Future[Reply]] = {}
        self._readers: Counter[str] = Counter()  # how many items of the request wait for a job just now

    async def submit(
        self, jobs: Iterable[Job], *, use_cache: bool = True, unbounded: bool = False, unless: Sequence[str] = ()
    ) -> None:
        """Admit these jobs; raises Overloaded or WouldMissDeadline with nothing of this errand left in the queue.

        `unless`, for jobs of one queue: raises Remembered if something is remembered under these keys, and then this
        errand has none of the jobs.
        """
        by_queue: dict[str, dict[str, Job]] = {}
        for job in jobs:
            by_queue.setdefault(job.queue, {})[job.id] = job
        for name, wanted in by_queue.items():
            fresh = [job for job in wanted.values() if job.id not in self._futures]
            bound = Bound(2**31, float("inf")) if unbounded else self._bound(name)
            if not unbounded:
                await self._refuse_the_hopeless(name)
            for job in fresh:
                self._futures[job.id] = self.mailbox.hold(job.id, name)
            try:
                tokens = {self.mailbox.token(job.id): job for job in fresh}
                finished = await self.queue.submit(tokens, bound, use_cache=use_cache, unless=unless)
            except Remembered:
                self.mailbox.let_go({job.id: self._futures.pop(job.id) for job in fresh})
                raise
            except Overloaded as error:
                retry_after_s = error.retry_after_s or self._drain_time(name, sum(job.cost for job in fresh))
                metrics.rejected.labels("queue_full").inc()
                raise Overloaded(error.detail, retry_after_s=retry_after_s) from error
            self.mailbox.submitted(job.id for job in fresh)
            for reply in finished.values():
                metrics.cache_hits.labels("execute" if name == EXECUTE_QUEUE else "score").inc()
                self.mailbox.deliver(Reply(reply.job, reply.body, worker="cache"))

    async def reply(self, job: str) -> Reply:
        """The job's ending, or `timeout_queue` once the request's deadline passes."""
        future = self._futures[job]
        self._readers[job] += 1
        try:
            done, _ = await asyncio.wait([future], timeout=max(0.0, self.context.left_s))
        finally:
            self._readers[job] -= 1
        if not done:
            return Reply(job, Failed(JobState.TIMEOUT, "deadline", "not done by the deadline", True))
        reply = future.result()
        if reply.worker != "cache":
            self.context.saw(reply.queue_ms, reply.compute_ms)
        return reply

    async def replies(self, jobs: Iterable[str]) -> dict[str, Reply]:
        """All their endings."""
        ids = list(jobs)
        return dict(zip(ids, await asyncio.gather(*map(self.reply, ids)), strict=True))

    async def replies_until(self, jobs: Iterable[str], enough: Callable[[Reply], bool]) -> dict[str, Reply]:
        """Their endings until one is `enough`; the others are taken back as `cancelled`."""
        waiting = {asyncio.ensure_future(self.reply(job)): job for job in jobs}
        found: dict[str, Reply] = {}
        try:
            while waiting and not any(map(enough, found.values())):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                found.update({waiting.pop(task): task.result() for task in done})
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await self.release(job for job in waiting.values() if not self._readers[job])  # another item may need it
        stopped = Failed(JobState.CANCELLED, "early_stop", "another completion of the group passed everything", False)
        return found | {job: Reply(job, stopped) for job in waiting.values()}

    async def release(self, jobs: Iterable[str]) -> None:
        """Stop waiting for these jobs now."""
        futures = {job: self._futures.pop(job) for job in list(jobs) if job in self._futures}
        for queue, orphans in self.mailbox.let_go(futures).items():
            try:
                await self.queue.leave(queue, orphans)
            except BrokerUnavailable as error:
                log.warning("jobs not taken back, their deadline will end them: %s", error.detail)

    async def __aenter__(self) -> Errand:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Shielded: a caller that is being cancelled must still get its jobs out of the queue.
        await asyncio.shield(self.release(list(self._futures)))

    def _bound(self, queue: str) -> Bound:
        if queue == EXECUTE_QUEUE:
            return Bound(self.settings.max_queued_execute, self.settings.max_queued_execute_cpu_s)
        return Bound(self.settings.max_queued_score, self.settings.max_queued_score_tokens)

    def _drain_time(self, queue: str, cost: float) -> float:
        """How long until so much would have drained, at the measured rate."""
        rate = self.fleet.line(queue).rate
        low, high = RETRY_AFTER_S
        return low if not rate else min(high, max(low, cost / rate))

    def hopeless(self, queue: str) -> bool:
        """Whether this queue looks too long for this request's deadline."""
        wait_s = self.fleet.line(queue).wait_s()
        return wait_s is not None and wait_s > self.context.left_s

    async def _refuse_the_hopeless(self, queue: str) -> None:
        line = self.fleet.line(queue)
        wait_s = line.wait_s()
        if wait_s is not None and wait_s > self.context.left_s:
            # The fleet looked up to a second ago: the line may be short by now, so look before saying no.
            line.load = replace(await self.queue.load(queue), drained=line.load.drained)
            wait_s = line.wait_s()
        if wait_s is not None and wait_s > self.context.left_s:
            metrics.rejected.labels("deadline").inc()
            raise WouldMissDeadline(
                f"queue {queue} needs about {wait_s:.1f} s, and {max(0.0, self.context.left_s):.1f} s are left",
                retry_after_s=min(RETRY_AFTER_S[1], max(RETRY_AFTER_S[0], wait_s - self.context.left_s)),
            )
