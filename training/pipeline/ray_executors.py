"""Chunks of work over a Ray cluster: executors that own what they need, one window of chunks in flight.

- An executor is a Ray actor. It opens its resource (a sandbox, a model) once, and closes it when the work is done.
- There is an executor for every slot that the cluster has, checked every few seconds: nodes may come and go.
- An executor gets a chunk when it is ready, and a second one beside it. So no chunk waits for an executor whose node is
  gone, and no more than two chunks per executor are in memory.
- When an executor ends (its node is lost, it is out of memory), its chunks go to others. A chunk that was being worked
  on by `max_tries` executors that ended is taken to be the cause: the stage fails and says so.
- An exception that the work raises ends the stage, as it would in this process.
- Not promised: that a chunk is worked on once. Who records results records them by key.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from plaudit.errors import HostLacks, InfraError
from training.pipeline import config

Item = TypeVar("Item")
Row = TypeVar("Row")
Work = Callable[[list[Item]], list[Row]]
AHEAD = 2  # chunks of an executor in flight: one that it works on, and the next
RESIZE_S = 2.0  # between two looks at how many executors the cluster has room for
START_S = 600.0  # for a first executor to start, when a cluster grows by nodes
CLOSE_S = 20.0  # for executors to close what they own


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to `size` items, made as they are taken."""
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def results_on_ray(
    opened: Callable[[], AbstractContextManager[Work[Item, Row]]],
    chunks: Iterable[list[Item]],
    settings: config.RayConfig,
    *,
    gpus: float = 0.0,
) -> Iterator[list[Row]]:
    """The results of every chunk, as they come.

    Args:
        opened: on an executor's node, opens what the work needs; it is pickled.
        chunks: are taken as executors have room for them.
        settings: the cluster, and the size of an executor.
        gpus: of an executor.

    Raises:
        HostLacks: without Ray, or without a cluster at `ray.address`.
        InfraError: for a chunk on which `ray.max_tries` executors ended.
        Exception: what the work raises.
    """
    for _, rows in _numbered(opened, chunks, settings, gpus, ordered=False):
        yield rows


def ordered_on_ray(
    opened: Callable[[], AbstractContextManager[Work[Item, Row]]],
    chunks: Iterable[list[Item]],
    settings: config.RayConfig,
    *,
    gpus: float = 0.0,
) -> Iterator[list[Row]]:
    """`results_on_ray` in the chunks' order; a slow chunk holds back a few of those behind it, and no more."""
    waiting: dict[int, list[Row]] = {}
    wanted = 0
    for number, rows in _numbered(opened, chunks, settings, gpus, ordered=True):
        waiting[number] = rows
        while wanted in waiting:
            yield waiting.pop(wanted)
            wanted += 1


def _numbered(
    opened: Callable[[], AbstractContextManager[Work[Item, Row]]],
    chunks: Iterable[list[Item]],
    settings: config.RayConfig,
    gpus: float,
    *,
    ordered: bool,
) -> Iterator[tuple[int, list[Row]]]:
    numbered = enumerate(chunks)
    first = next(numbered, None)
    if first is None:
        return  # no cluster for no work
    connect(settings)
    executors = _Executors(opened, settings, gpus)
    again: deque[_Chunk[Item]] = deque([_Chunk(*first)])
    done, lowest = set[int](), 0

    def next_chunk() -> _Chunk[Item] | None:
        if again:
            return again.popleft()
        if ordered and executors.num_given - lowest >= 4 * AHEAD * max(1, executors.num_ready):
            return None
        item = next(numbered, None)
        return None if item is None else _Chunk(*item)

    try:
        while True:
            executors.resize()
            executors.give(next_chunk)
            if not executors.num_in_flight and not again:
                if (chunk := next_chunk()) is None:
                    return
                again.append(chunk)
            for chunk, rows in executors.wait(again):
                yield chunk.number, rows
                done.add(chunk.number)
                while lowest in done:
                    done.discard(lowest)
                    lowest += 1
    finally:
        executors.close()


@dataclass(slots=True)
class _Chunk(Generic[Item]):
    """A chunk of work; `ended` counts the executors that ended while they worked on it."""

    number: int
    items: list[Item]
    ended: int = 0


@dataclass(eq=False, slots=True)
class _Executor:
    """An actor; `refs` are its chunks in flight, the one that it works on first."""

    actor: Any
    opening: Any
    refs: deque[tuple[Any, _Chunk[Any]]] = field(default_factory=deque)


class _Executors:
    """The executors of one piece of work, and what each of them has been given."""

    def __init__(self, opened: Callable[[], Any], settings: config.RayConfig, gpus: float) -> None:
        import ray

        self._settings, self._gpus = settings, gpus
        placed: Any = ray.remote(num_cpus=settings.cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._class = placed(_Actor)
        self._opened = opened
        self._opening: list[_Executor] = []
        self._ready: list[_Executor] = []
        self._alone_since_s, self._resized_s = time.monotonic(), -RESIZE_S
        self._num_failed_to_open = 0
        self.num_given = 0

    @property
    def num_ready(self) -> int:
        return len(self._ready)

    @property
    def num_in_flight(self) -> int:
        return sum(len(executor.refs) for executor in self._ready)

    def resize(self) -> None:
        """Start executors for the slots that have none."""
        import ray

        if time.monotonic() - self._resized_s < RESIZE_S:
            return
        self._resized_s = time.monotonic()
        room: dict[str, float] = ray.cluster_resources()
        slots = int(room.get("CPU", 0.0) // self._settings.cpus)
        if self._gpus:
            slots = min(slots, int(room.get("GPU", 0.0) // self._gpus))
        if self._ready:
            self._alone_since_s = time.monotonic()
        elif time.monotonic() - self._alone_since_s > START_S:
            raise InfraError(
                f"no executor has started in {START_S:.0f} s: one needs {self._settings.cpus:g} CPUs (ray.cpus) and "
                f"{self._gpus:g} GPUs (ray.gpus), and the cluster has {room.get('CPU', 0.0):g} and "
                f"{room.get('GPU', 0.0):g}"
            )
        wanted = max(1, min(slots, self._settings.executors or slots))  # one that waits makes a cluster grow
        for _ in range(wanted - len(self._ready) - len(self._opening)):
            actor = self._class.remote(self._opened)
            self._opening.append(_Executor(actor, actor.open.remote()))

    def give(self, next_chunk: Callable[[], _Chunk[Any] | None]) -> None:
        """Hand out chunks, a first one to each executor before a second one to any."""
        for depth in range(1, AHEAD + 1):
            for executor in self._ready:
                if len(executor.refs) >= depth:
                    continue
                if (chunk := next_chunk()) is None:
                    return
                executor.refs.append((executor.actor.work.remote(chunk.items), chunk))
                self.num_given = max(self.num_given, chunk.number + 1)

    def wait(self, again: deque[_Chunk[Any]]) -> list[tuple[_Chunk[Any], list[Any]]]:
        """Results that have come; the chunks of executors that ended are put into `again`."""
        import ray

        executors = {executor.opening: executor for executor in self._opening}
        executors |= {executor.refs[0][0]: executor for executor in self._ready if executor.refs}
        if not executors:
            time.sleep(RESIZE_S / 4)  # the cluster has no room at the moment
            return []
        finished, _ = ray.wait(list(executors), num_returns=1, timeout=RESIZE_S)
        results = []
        for ref in finished:
            executor = executors[ref]
            try:
                rows = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError as error:
                self._ended(executor, error, again)
                continue
            if executor in self._opening:
                self._opening.remove(executor)
                self._ready.append(executor)
                self._num_failed_to_open = 0
            else:
                results.append((executor.refs.popleft()[1], rows))
        return results

    def _ended(self, executor: _Executor, error: Exception, again: deque[_Chunk[Any]]) -> None:
        import ray

        ray.kill(executor.actor)
        if executor in self._opening:
            self._opening.remove(executor)
            self._num_failed_to_open += 1
            if self._num_failed_to_open >= self._settings.max_tries * 4:
                raise InfraError(f"executors end while they start; the last: {_short(error)}") from error
            return
        self._ready.remove(executor)
        for at, (_, chunk) in enumerate(executor.refs):
            if at == 0:
                chunk.ended += 1
            if chunk.ended >= self._settings.max_tries:
                raise InfraError(
                    f"{chunk.ended} executors ended while they worked on the same {len(chunk.items)} items "
                    f"(ray.max_tries); the last: {_short(error)}"
                ) from error
            again.append(chunk)

    def close(self) -> None:
        """Let every executor close what it owns, then end them all."""
        import ray

        if not ray.is_initialized():
            return
        if self._ready:
            closing = [executor.actor.close.remote() for executor in self._ready]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for executor in [*self._ready, *self._opening]:
            ray.kill(executor.actor)


class _Actor:
    """What runs on a node. Nothing is opened before `open`, so that its exceptions come back as they are."""

    def __init__(self, opened: Callable[[], AbstractContextManager[Work[Any, Any]]]) -> None:
        self._opened, self._stack = opened, ExitStack()

    def open(self) -> None:
        try:
            self._work = self._stack.enter_context(self._opened())
        except HostLacks as error:
            raise HostLacks(f"node {os.uname().nodename}: {error.detail}") from None

    def work(self, items: list[Any]) -> list[Any]:
        return self._work(items)

    def close(self) -> None:
        self._stack.close()


def connect(settings: config.RayConfig) -> None:
    """Join the cluster, or start one on this host, unless this process is in one already. Raises `HostLacks`."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise HostLacks("the package ray is not installed: pip install 'plaudit-server[ray]'") from error
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports to nobody
    try:
        ray.init(
            address=settings.address or "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise HostLacks(f"ray.address: no cluster at {settings.address!r}: {_short(error)}") from error


def _short(error: Exception) -> str:
    """The first and the last line of Ray's often long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
