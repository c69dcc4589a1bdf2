"""A worker's second thread: announces the worker and renews its leases while the working thread makes progress.

Now and then it also removes what crashed workers left behind.

When the working thread has made no progress for too long, both stop, so a stuck worker counts as dead while its process
lives, and its jobs go to other workers.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from service import metrics
from service.queue.consumer import Consumer, Lease
from service.queue.keys import script

log = logging.getLogger("plaudit.queue")

KEEP_EXPIRED_MS = 60_000  # how long an announcement that ran out is kept
SWEEP_S = 30.0  # between two looks for what crashed workers left behind


class Heartbeat:
    """A context manager around the worker loop.

    Args:
        consumer: whose leases are renewed.
        kind: of the worker, "score" or "execute".
        info: the announcement; it may change while the worker works.
        every_s: seconds between two beats.
        stuck_after_s: seconds without `progress` after which the worker counts as stuck.
        on_cancelled: called from this thread with each lease whose job has ended elsewhere.
    """

    def __init__(
        self,
        consumer: Consumer,
        kind: str,
        info: dict[str, Any],
        *,
        every_s: float,
        stuck_after_s: float,
        on_cancelled: Callable[[Lease], None],
    ) -> None:
        self.consumer = consumer
        self.info = info
        info["kind"] = kind
        self.every_s = every_s
        self.stuck_after_s = stuck_after_s
        self.on_cancelled = on_cancelled
        self._announce = consumer.client.register_script(script("announce", spare=True))
        self._progress = time.monotonic()
        self._sweep_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def progress(self) -> None:
        """Called by the working thread: it is not stuck."""
        self._progress = time.monotonic()

    def beat(self) -> None:
        """Announce the worker and renew its leases, once."""
        keys, client = self.consumer.keys, self.consumer.client
        if time.monotonic() - self._progress > self.stuck_after_s:
            log.error("worker makes no progress; its announcement and its leases expire")
            return
        self.consumer.clock.read(client)
        arguments = [self.consumer.name, int(self.every_s * 3000), json.dumps(self.info)]
        self._announce(keys=[keys.workers, keys.workers_info], args=arguments)
        kind = self.info["kind"]
        alive = client.zrangebyscore(keys.workers, self.consumer.clock.now_ms(), "+inf")
        self.consumer.num_workers = max(1, sum(name.startswith(f"{kind}-".encode()) for name in alive))
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_S
            self.consumer.sweep(KEEP_EXPIRED_MS)
        for lease in self.consumer.renew():
            self.on_cancelled(lease)

    def _run(self) -> None:
        pause_s = self.every_s
        while not self._stop.wait(pause_s):
            began = time.monotonic()
            try:
                self.beat()
            except (RedisError, OSError, MemoryError) as error:  # memory: the working thread may have used it up
                log.warning("heartbeat missed: %s", error)
            except Exception:  # a background loop outlives what it meets
                metrics.loop_failures.labels("heartbeat").inc()
                log.exception("heartbeat failed; it goes on")
            # A beat that Redis held up is out of date when it arrives, so the next one follows at once.
            pause_s = max(0.1, self.every_s - (time.monotonic() - began))

    def __enter__(self) -> Heartbeat:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        keys, client = self.consumer.keys, self.consumer.client
        try:
            client.zrem(keys.workers, self.consumer.name)
            client.hdel(keys.workers_info, self.consumer.name)
            self.consumer.retire()
        except (RedisError, OSError) as error:
            log.warning("worker could not sign off: %s", error)
