"""Which Redis of several a piece of work goes to, and test suites that any of them may need.

- A group is placed by its content, so the same group always goes to the same shard, where its jobs, replies and cached
  results are. With one shard nothing is hashed.
- A stored test suite is written to the two shards that rank highest for its digest, and read down the same ranking. So
  it is found after one shard is lost or added, and jobs bring it along to the shard of their group.
"""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.errors import BrokerUnavailable
from service.jobs import content_hash
from service.queue.producer import Queue
from service.queue.shards import rank

SUITE_COPIES = 2


class Shards:
    """The queues of an API process, one per shard.

    Args:
        queues: by the shard's name.
    """

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self.names = list(queues)
        self.queues = list(queues.values())

    def __len__(self) -> int:
        return len(self.queues)

    def place(self, *parts: object) -> int:
        """The index of the shard on which something of this content lives."""
        return 0 if len(self.queues) == 1 else rank(self.names, content_hash(*parts))[0]

    def queue_of(self, *parts: object) -> Queue:
        return self.queues[self.place(*parts)]

    async def put_suites(self, frames: Mapping[str, bytes], keep_s: int) -> None:
        """Store suites by digest for at least so long. Raises Overloaded, and BrokerUnavailable if no shard answers."""
        if len(self.queues) == 1:
            await self.queues[0].put_suites(frames, keep_s)
            return
        for sha256, frame in frames.items():
            num_copies, away = 0, BrokerUnavailable("no shard answers", retry_after_s=1.0)
            for queue in self._ranked(sha256):
                try:
                    await queue.put_suites({sha256: frame}, keep_s)
                    num_copies += 1
                except BrokerUnavailable as error:
                    away = error
                if num_copies == SUITE_COPIES:
                    break
            if not num_copies:
                raise away

    async def get_suite(self, sha256: str) -> bytes | None:
        """A stored suite. Raises BrokerUnavailable if it may be on a shard that does not answer."""
        if len(self.queues) == 1:
            return await self.queues[0].get_suite(sha256)
        num_away = 0
        for queue in self._ranked(sha256):
            try:
                if (frame := await queue.get_suite(sha256)) is not None:
                    return frame
            except BrokerUnavailable:
                num_away += 1
        if num_away:  # a suite that was stored while a shard was away may have a single copy
            raise BrokerUnavailable(
                f"{num_away} of {len(self.queues)} shards do not answer, and the suite may be on them",
                retry_after_s=1.0,
            )
        return None

    def _ranked(self, key: str) -> list[Queue]:
        return [self.queues[index] for index in rank(self.names, key)]
