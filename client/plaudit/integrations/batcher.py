"""Rows of a trainer in, rewards out: what every reward function of `plaudit.integrations` stands on.

- A whole batch is one request (`rewards`, `rewards_async`).
- Trainers that hand over one row at a time do so from many threads or tasks at once: `reward` and `reward_async` wait
  `gather_s` for those others, and one request goes out for all.
- A wrong configuration is raised at once, since waiting does not mend it: a key, a model's name, an option that does
  not exist, a limit beyond the service's, a label without tests that can be read.
- Pass rates and a model's scores never mix in one column: the model alone decides only under `reward="model"` or a spec
  of such terms.
- A RewardBatcher may be pickled and forked: connections are not taken along.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Unpack

from plaudit import ray_address
from plaudit.async_client import AsyncClient
from plaudit.client import Client
from plaudit.errors import PlauditError, UsageError
from plaudit.integrations.config import BatcherConfig, BatcherOptions, Misconfigured
from plaudit.integrations.row_rewards import RowReward, raise_misconfigured, rewards_of
from plaudit.integrations.rows import TrainerRow
from plaudit.options import refuse_unknown

log = logging.getLogger("plaudit.rewards")

LONG_TIMEOUT_S = 600.0  # of trainers that end when no reward arrives
MAX_TRIES = 1_000_000  # the deadline ends a call, not a count: an API takes longer to restart than six attempts


class RewardBatcher:
    """Rewards rows by a running service.

    Args:
        url: Where the service listens: http://, https://, or ray://NAME in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        **options: `BatcherOptions`.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value.

    Example:
        >>> batcher = RewardBatcher("http://127.0.0.1:8000", reward="tests")
        >>> rewards = batcher.rewards([TrainerRow("Write add.", completion, ["assert add(1, 2) == 3"])])
        >>> rewards[0].value()
    """

    def __init__(self, url: str, api_key: str | None = None, **options: Unpack[BatcherOptions]) -> None:
        self.config = BatcherConfig.of(options)
        _check_url(url)
        self._arguments = (url, api_key, options)
        self._connection: dict[str, Any] = {
            "url": url,
            "api_key": api_key,
            "timeout_s": self.config.timeout_s,
            "max_tries": MAX_TRIES,
            "max_connections": self.config.max_connections,
        }
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        """Without connections and without waiters: at first, and in the child of a fork, whose parent keeps them."""
        self._lock = threading.Lock()
        self._waiting: list[tuple[TrainerRow, Future[RowReward]]] = []
        self._client: Client | None = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = weakref.WeakKeyDictionary()

    @property
    def needs_tests(self) -> bool:
        """Whether rows are rewarded by the tests in their labels."""
        return self.config.effective_spec.executes

    def close(self) -> None:
        """Close the blocking connections. The next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def close_async(self) -> None:
        """Close those of the running event loop."""
        state = self._loops.pop(asyncio.get_running_loop(), None)
        if state is not None:
            await state.client.close()

    def __reduce__(self) -> tuple[Callable[..., RewardBatcher], tuple[Any, ...]]:
        return _from_arguments, self._arguments

    # --- batches -----------------------------------------------------------------------------------------------------

    def rewards(self, rows: Sequence[TrainerRow]) -> list[RowReward]:
        """Reward a batch of rows by one request.

        Args:
            rows: Completions with their prompts and labels.

        Returns:
            One reward per row, in order. A row that a server error hit has an error instead of a number.

        Raises:
            Misconfigured: A row's tests cannot be read, or an option is wrong for the service.

        Example:
            >>> [reward.value() for reward in batcher.rewards(rows)]
        """
        return raise_misconfigured(self._rewards(rows, one_batch=True))

    def _rewards(self, rows: Sequence[TrainerRow], *, one_batch: bool) -> list[RowReward]:
        client = self._blocking()
        return client.run(rewards_of(client.calls, self.config, rows, one_batch=one_batch))

    async def rewards_async(self, rows: Sequence[TrainerRow]) -> list[RowReward]:
        """Reward a batch of rows by one request, awaited. Args, Returns, Raises as in `rewards`."""
        return raise_misconfigured(await self._rewards_async(rows, one_batch=True))

    async def _rewards_async(self, rows: Sequence[TrainerRow], *, one_batch: bool) -> list[RowReward]:
        client = self._awaiting().client
        return await client.run(rewards_of(client.calls, self.config, rows, one_batch=one_batch))

    # --- one row at a time -------------------------------------------------------------------------------------------

    def reward(self, row: TrainerRow) -> RowReward:
        """Reward one row. Rows of other threads that arrive within `gather_s` share its request.

        Args:
            row: A completion with its prompt and label.

        Returns:
            The reward, or an error instead of a number.

        Raises:
            Misconfigured: The row's tests cannot be read, or an option is wrong for the service.

        Example:
            >>> batcher.reward(TrainerRow("Write add.", completion, ["assert add(1, 2) == 3"])).value()
        """
        future: Future[RowReward] = Future()
        with self._lock:
            self._waiting.append((row, future))
            first = len(self._waiting) == 1
        if first:
            time.sleep(self.config.gather_s)
            with self._lock:
                gathered, self._waiting = self._waiting, []
            try:
                rewards = self._rewards([row for row, _ in gathered], one_batch=False)
                for (_, waiter), reward in zip(gathered, rewards, strict=True):
                    waiter.set_result(reward)
            except PlauditError as error:
                for _, waiter in gathered:
                    waiter.set_exception(error)
            finally:  # whatever happened, no thread keeps waiting
                for _, waiter in gathered:
                    waiter.cancel()
        return raise_misconfigured([future.result()])[0]

    async def reward_async(self, row: TrainerRow) -> RowReward:
        """Reward one row, awaited. Rows of other tasks of this event loop share its request. Else as `reward`."""
        state = self._awaiting()
        future: asyncio.Future[RowReward] = asyncio.get_running_loop().create_future()
        state.waiting.append((row, future))
        if len(state.waiting) == 1:
            task = asyncio.create_task(self._send_gathered(state))
            state.tasks.add(task)
            task.add_done_callback(state.tasks.discard)
        return raise_misconfigured([await future])[0]

    async def _send_gathered(self, state: _LoopState) -> None:
        await asyncio.sleep(self.config.gather_s)
        gathered, state.waiting = [pair for pair in state.waiting if not pair[1].done()], []
        try:
            rewards = await self._rewards_async([row for row, _ in gathered], one_batch=False)
            for (_, waiter), reward in zip(gathered, rewards, strict=True):
                if not waiter.done():
                    waiter.set_result(reward)
        except PlauditError as error:
            for _, waiter in gathered:
                if not waiter.done():
                    waiter.set_exception(error)
        finally:
            for _, waiter in gathered:
                waiter.cancel()

    # --- connections -------------------------------------------------------------------------------------------------

    def _blocking(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = Client(**self._connection)
                weakref.finalize(self, self._client.close).atexit = False
            return self._client

    def _awaiting(self) -> _LoopState:
        running = asyncio.get_running_loop()
        if running not in self._loops:
            self._loops[running] = _LoopState(AsyncClient(**self._connection))
        return self._loops[running]


class _LoopState:
    """What belongs to one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.waiting: list[tuple[TrainerRow, asyncio.Future[RowReward]]] = []
        self.tasks: set[asyncio.Task[None]] = set()


def _check_url(url: Any) -> None:
    """Raises Misconfigured."""
    if isinstance(url, str) and url.startswith(ray_address.SCHEME):
        try:
            ray_address.check(url)
        except UsageError as error:
            raise Misconfigured(error.detail) from None
    elif not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise Misconfigured(f"url: {url!r} does not begin with http://, https:// or ray://")


def _from_arguments(url: str, api_key: str | None, options: BatcherOptions) -> RewardBatcher:
    return RewardBatcher(url, api_key, **options)


_alive: weakref.WeakSet[RewardBatcher] = weakref.WeakSet()


def _after_fork() -> None:
    for batcher in _alive:
        batcher._reset()


os.register_at_fork(after_in_child=_after_fork)


# --- for the modules of the trainers ---------------------------------------------------------------------------------


def batcher_for(function: str, url: str, api_key: str | None, options: Mapping[str, Any], **own: Any) -> RewardBatcher:
    """The batcher behind a reward function.

    Args:
        function: The reward function's name, for messages.
        options: What its caller gave as `BatcherOptions`.
        **own: Options that this function has beside them: `column`, `name`, `fallback`.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value.
    """
    refuse_unknown(options, BatcherOptions.__annotations__.keys() | own.keys(), function)
    for name, value in own.items():
        if name in ("column", "name") and not (isinstance(value, str) and value):
            raise Misconfigured(f"{name}: {value!r} is not a name")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name == "fallback" and value is not None and not number:
            raise Misconfigured(f"fallback: {value!r} is not a number")
    return RewardBatcher(url, api_key, **options)


def log_missing(rewards: Sequence[RowReward]) -> None:
    """Log once per call how many rows have no reward, and why."""
    missing = [reward for reward in rewards if reward.reward is None]
    if missing:
        log.warning(
            "%d of %d rows without a reward: %s",
            len(missing),
            len(rewards),
            "; ".join(sorted({str(reward.error) for reward in missing}))[:1000],
        )
