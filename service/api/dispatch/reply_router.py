"""One reply list per API process, and the futures of everyone who waits for a reply.

- A job has one future here, however many callers share it. The last caller to leave takes the job back from the queue.
- A lost connection to Redis can lose replies. So after every reconnect, and once a second anyway, jobs without a reply
  for `SILENT_S` are looked up where their endings are kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable

from msgspec import structs

from plaudit.errors import BrokerUnavailable
from service.jobs import Executed, Failed, JobState, Reply, Scored
from service.queue.keys import BLOCK_S, kind_of_queue
from service.queue.producer import Queue
from service.queue.protocol import count_finished_job

log = logging.getLogger("plaudit.reply_router")

SILENT_S = 2.0  # a job without a reply for so long is looked up
PAUSE_S = 0.001  # after replies: the answers they make possible go out first, and later replies are read in one batch
LOOK_UP_BATCH = 512


class _Pending:
    """A job that somebody waits for."""

    __slots__ = ("checked_at", "future", "num_waiters", "queue", "submitted", "token")

    def __init__(self, queue: str) -> None:
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.queue = queue
        self.num_waiters = 0
        self.submitted = False
        self.checked_at = time.monotonic()
        self.token = uuid.uuid4().hex[:16]


class ReplyRouter:
    """Request handlers call everything but `receive`, which the background loop of the same event loop calls."""

    def __init__(self, queue: Queue, on_worked: Callable[[str], None]) -> None:
        """`on_worked` is called with the id of every worker that has done a job."""
        self.queue = queue
        self.on_worked = on_worked
        self._pending: dict[str, _Pending] = {}
        self._connection_lost = False
        self._looked_up_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._pending)

    def wait_for(self, job: str, queue: str) -> asyncio.Future[Reply]:
        """Wait for a job. Call before submitting it, `submitted` after, and `release` exactly once at the end."""
        pending = self._pending.get(job)
        if pending is None or pending.future.done():
            pending = self._pending[job] = _Pending(queue)
        pending.num_waiters += 1
        return pending.future

    def token(self, job: str) -> str:
        """The token under which this process waits for the job since `wait_for`."""
        return self._pending[job].token

    def submitted(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            if pending := self._pending.get(job):
                pending.submitted = True
                pending.checked_at = time.monotonic()

    def deliver(self, reply: Reply) -> None:
        if isinstance(reply.body, Scored | Executed) and reply.worker not in ("", "cache"):
            self.on_worked(reply.worker)
        pending = self._pending.get(reply.job)
        if pending is not None and not pending.future.done():
            pending.future.set_result(reply)

    def release(self, futures: dict[str, asyncio.Future[Reply]]) -> dict[str, dict[str, str]]:
        """Stop waiting.

        Returns:
            Per queue, the unfinished jobs that nobody here waits for any more, by token.
        """
        orphans: dict[str, dict[str, str]] = {}
        for job, future in futures.items():
            pending = self._pending.get(job)
            if pending is None or pending.future is not future:
                continue  # a later caller has started the same work again
            pending.num_waiters -= 1
            if pending.num_waiters == 0:
                del self._pending[job]
                if not pending.future.done():
                    orphans.setdefault(pending.queue, {})[pending.token] = job
        return orphans

    async def receive(self) -> None:
        """Read the reply list once. A silent Redis costs a look-up afterwards, never a lost reply."""
        try:
            replies = await self.queue.replies(BLOCK_S)
            for reply in replies:
                self.deliver(reply)
            if replies:
                await asyncio.sleep(PAUSE_S)
            if self._connection_lost or time.monotonic() - self._looked_up_at > SILENT_S / 2:
                await self._look_up(0.0 if self._connection_lost else SILENT_S)
                self._connection_lost, self._looked_up_at = False, time.monotonic()
        except BrokerUnavailable as error:
            if not self._connection_lost:
                log.warning("no replies are received: %s", error.detail)
            self._connection_lost = True
            await asyncio.sleep(0.1)

    async def _look_up(self, silent_s: float) -> None:
        before = time.monotonic() - silent_s
        silent_jobs = [
            job
            for job, pending in self._pending.items()
            if pending.submitted and not pending.future.done() and pending.checked_at <= before
        ]
        for start in range(0, len(silent_jobs), LOOK_UP_BATCH):
            jobs = silent_jobs[start : start + LOOK_UP_BATCH]
            for job, reply in (await self.queue.look_up(jobs)).items():
                lost = Failed(JobState.FAILED, "job_lost", "the queue lost this job; did it restart empty?", True)
                if reply is None and (pending := self._pending.get(job)):
                    count_finished_job(kind_of_queue(pending.queue), lost)
                self.deliver(Reply(job, lost) if reply is None else structs.replace(reply, job=job))
            for job in jobs:
                if pending := self._pending.get(job):
                    pending.checked_at = time.monotonic()
