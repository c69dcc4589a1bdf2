"""The jobs that an executor has in hand: one runs, the others wait for it, and answers go out together.

- The working thread asks for the `next` job and hands in what is `finished`. Answers go out once the oldest is
  `SEND_AFTER_S` old, and at once when no job waits.
- A second thread looks after what waits while a job runs: it sends the answers, and hands the waiting jobs back once
  the running one takes longer than `HAND_BACK_AFTER_S`. So no job waits behind a long one while a worker is idle.
- When the worker is told to end, jobs that were not begun go back, too.
- Redis is told which job is running: with the answers of those before it. Until then the oldest of those counts as
  running. So a job that crashes its worker at once may hide behind one that has ended; therefore jobs of a crashed
  worker are begun one by one: each is marked before it begins, and answered before the next one does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from service import metrics
from service.queue.consumer import FinishedJob, Lease

log = logging.getLogger("plaudit.worker")

SEND_AFTER_S = 0.025
HAND_BACK_AFTER_S = 0.05
MAX_IN_HAND = 16
MAX_TAKEN_S = 0.5  # of one job in the mean, so that a single long one is soon forgotten
WEIGHT = 0.2  # of the latest job in the mean


class JobEnder(Protocol):
    """What a batch needs of the worker loop (`service.worker.loop.WorkerContext`)."""

    @property
    def stopping(self) -> bool: ...

    def begin(self, lease: Lease) -> None: ...

    def answer_all(self, jobs: Sequence[FinishedJob], begun: Lease | None = None) -> None: ...

    def hand_back(self, leases: Sequence[Lease]) -> bool: ...

    def drop(self, lease: Lease) -> None: ...


class JobPace:
    """How long an executor's jobs take, and so how many it takes in hand. Plain values, no clock of its own."""

    def __init__(self) -> None:
        self.mean_s = HAND_BACK_AFTER_S

    def capacity(self) -> int:
        """As many jobs as are done, by the mean of the latest, before they would be handed back."""
        return max(1, min(MAX_IN_HAND, int(HAND_BACK_AFTER_S / self.mean_s)))

    def took(self, seconds: float) -> None:
        """One more job has ended."""
        self.mean_s += WEIGHT * (min(MAX_TAKEN_S, seconds) - self.mean_s)


class JobBatch:
    """One per executor; it is empty between two steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sending = threading.Lock()  # held while answers are on their way
        self._waiting: deque[Lease] = deque()
        self._running: Lease | None = None
        self._finished: list[FinishedJob] = []
        self._one_by_one = False
        self._finished_at = self._began_at = 0.0
        self._handed_back = False  # whether it was tried since the running job began
        self._context: JobEnder | None = None
        self._pace = JobPace()
        self._watched = threading.Event()
        self._watcher: threading.Thread | None = None

    def capacity(self) -> int:
        return self._pace.capacity()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def start(self, leases: Sequence[Lease], context: JobEnder) -> None:
        self._context = context
        with self._lock:
            self._waiting.extend(leases)
            self._one_by_one = any(lease.reclaimed for lease in self._waiting)
        if len(leases) > 1:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="batch", daemon=True)
                self._watcher.start()
            self._watched.set()

    def next(self) -> Lease | None:
        """The job to begin now; None if there is none."""
        assert self._context is not None
        with self._lock:
            stopping = self._context.stopping
            self._began_at, self._handed_back = time.monotonic(), False
        if stopping:
            self._hand_back()
        with self._lock:
            lease = self._running = self._waiting.popleft() if self._waiting else None
            unmarked = lease is not None and not self._finished
        if lease is not None and unmarked:
            self._context.begin(lease)
        return lease

    def finished(self, job: FinishedJob | None) -> None:
        """The running job has ended; None: it needs no answer."""
        with self._lock:
            now = time.monotonic()
            self._pace.took(now - self._began_at)
            self._running = None
            if job is not None:
                self._finished_at = self._finished_at if self._finished else now
                self._finished.append(job)
            due = self._one_by_one or not self._waiting or now - self._finished_at >= SEND_AFTER_S
        if due:
            self._send()

    def cancel(self, lease: Lease) -> None:
        """Drop a job that waits here. Called from the heartbeat's thread."""
        with self._lock:
            waits = lease in self._waiting
            if waits:
                self._waiting.remove(lease)
        if waits and self._context is not None:
            self._context.drop(lease)

    def close(self) -> None:
        """Send every answer. Jobs still waiting go back: their worker failed at another one."""
        self._hand_back()
        self._send()
        self._watched.clear()
        self._waiting.clear()  # what could not be handed back is the worker loop's to end

    def _send(self) -> None:
        assert self._context is not None
        with self._sending:
            with self._lock:
                jobs, self._finished = self._finished, []
                begun = self._running or (self._waiting[0] if self._waiting else None)
            self._context.answer_all(jobs, begun)

    def _hand_back(self) -> None:
        assert self._context is not None
        with self._lock:
            leases = list(self._waiting)
            self._waiting.clear()
            self._handed_back = True
        if leases and not self._context.hand_back(leases):
            with self._lock:
                self._waiting.extendleft(reversed(leases))

    def _watch(self) -> None:
        while True:
            self._watched.wait()
            time.sleep(SEND_AFTER_S)
            with self._lock:
                now = time.monotonic()
                late = self._waiting and not self._handed_back and now - self._began_at >= HAND_BACK_AFTER_S
                due = self._finished and now - self._finished_at >= SEND_AFTER_S
            try:
                if late:
                    log.info("jobs that wait behind a long one are handed back")
                    self._hand_back()
                if due:
                    self._send()
            except Exception:  # a background loop outlives what it meets
                metrics.loop_failures.labels("batch").inc()
                log.exception("answers were not sent; their jobs will be taken over")
