"""One reply list per API process, and the futures of everyone who waits on it.

A job has one future here however many callers share it; the last one to leave takes the job back from the queue. When
the connection to Redis is lost, replies may be lost with it: after every reconnect, and now and then anyway, jobs that
have been silent are looked up where their endings are kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable

from plaudit.errors import BrokerUnavailable
from service.jobs import Executed, Failed, JobState, Reply, Scored
from service.queue.keys import BLOCK_S, kind_of_queue
from service.queue.producer import Queue
from service.queue.protocol import count_finished_job

log = logging.getLogger("plaudit.mailbox")

SILENT_S = 2.0  # look a job up after so long without a word
PAUSE_S = 0.001  # after replies: the answers they make possible go out first, and what comes meanwhile comes at once


class _Slot:
    __slots__ = ("asked_at", "future", "holders", "queue", "submitted", "token")

    def __init__(self, queue: str) -> None:
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.queue = queue
        self.holders = 0
        self.submitted = False
        self.asked_at = time.monotonic()
        self.token = uuid.uuid4().hex[:16]


class Mailbox:
    """Call `turn` again and again (`loops.repeat`); request handlers of the same event loop call everything else."""

    def __init__(self, queue: Queue, worked: Callable[[str], None]) -> None:
        """`worked` hears the id of every worker that has done a job."""
        self.queue = queue
        self.worked = worked
        self._slots: dict[str, _Slot] = {}
        self._lost = False  # Redis did not answer last time
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self._slots)

    def hold(self, job: str, queue: str) -> asyncio.Future[Reply]:
        """Wait for a job. Call before submitting it, `submitted` after, and `let_go` exactly once at the end."""
        slot = self._slots.get(job)
        if slot is None or slot.future.done():
            slot = self._slots[job] = _Slot(queue)
        slot.holders += 1
        return slot.future

    def token(self, job: str) -> str:
        """Under which this process waits for the job since it is held."""
        return self._slots[job].token

    def submitted(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            if slot := self._slots.get(job):
                slot.submitted = True
                slot.asked_at = time.monotonic()

    def deliver(self, reply: Reply) -> None:
        if isinstance(reply.body, Scored | Executed) and reply.worker not in ("", "cache"):
            self.worked(reply.worker)
        slot = self._slots.get(reply.job)
        if slot is not None and not slot.future.done():
            slot.future.set_result(reply)

    def let_go(self, futures: dict[str, asyncio.Future[Reply]]) -> dict[str, dict[str, str]]:
        """Stop waiting. Answers, per queue, the unfinished jobs that no one here waits for any more, by token."""
        orphans: dict[str, dict[str, str]] = {}
        for job, future in futures.items():
            slot = self._slots.get(job)
            if slot is None or slot.future is not future:
                continue  # a later caller has begun the same work anew
            slot.holders -= 1
            if slot.holders == 0:
                del self._slots[job]
                if not slot.future.done():
                    orphans.setdefault(slot.queue, {})[slot.token] = job
        return orphans

    async def turn(self) -> None:
        """Receive once. A silent Redis costs a look-up afterwards, never a lost reply."""
        try:
            replies = await self.queue.replies(BLOCK_S)
            for reply in replies:
                self.deliver(reply)
            if replies:
                await asyncio.sleep(PAUSE_S)
            if self._lost or time.monotonic() - self._looked > SILENT_S / 2:
                await self._look_up(0.0 if self._lost else SILENT_S)
                self._lost, self._looked = False, time.monotonic()
        except BrokerUnavailable as error:
            if not self._lost:
                log.warning("replies stopped: %s", error.detail)
            self._lost = True
            await asyncio.sleep(0.1)

    async def _look_up(self, silent_s: float) -> None:
        before = time.monotonic() - silent_s
        silent = [
            job
            for job, slot in self._slots.items()
            if slot.submitted and not slot.future.done() and slot.asked_at <= before
        ]
        for start in range(0, len(silent), 512):
            chunk = silent[start : start + 512]
            for job, reply in (await self.queue.look_up(chunk)).items():
                gone = Failed(JobState.FAILED, "job_lost", "the queue lost this job; did it restart empty?", True)
                if reply is None and (slot := self._slots.get(job)):
                    count_finished_job(kind_of_queue(slot.queue), gone)
                self.deliver(reply or Reply(job, gone))
            for job in chunk:
                if slot := self._slots.get(job):
                    slot.asked_at = time.monotonic()
