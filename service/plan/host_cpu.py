"""The cores of a simulated host, and the clock and the queue of events of a simulation. No I/O, no real time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

Action = Callable[[], None]


class Events:
    """Actions by the moment at which they happen, in seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._actions: list[tuple[float, int, Action]] = []
        self._number = 0

    def at(self, moment_s: float, action: Action) -> None:
        self._number += 1
        heapq.heappush(self._actions, (max(moment_s, self.now_s), self._number, action))

    def after(self, seconds: float, action: Action) -> None:
        self.at(self.now_s + seconds, action)

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._actions:
            self.now_s, _, action = heapq.heappop(self._actions)
            action()


class HostCpu:
    """Cores that are shared equally by whatever wants to compute, each on one core at most.

    All tasks advance at one rate, so each is known by the value that the sum of that rate will have when it is done.
    """

    def __init__(self, events: Events, cores: float) -> None:
        self.cores = cores
        self.busy_s = 0.0  # core seconds that were used
        self._events = events
        self._advanced_s = 0.0  # CPU time that a task had which has run from the beginning
        self._since_s = 0.0
        self._tasks: list[tuple[float, int, Action]] = []
        self._number = 0
        self._turn = 0  # of the event that is to come; one of an older turn is out of date

    def _rate(self) -> float:
        return min(1.0, self.cores / len(self._tasks)) if self._tasks else 0.0

    def _advance(self) -> None:
        passed_s = self._events.now_s - self._since_s
        self._advanced_s += passed_s * self._rate()
        self.busy_s += passed_s * min(self.cores, len(self._tasks))
        self._since_s = self._events.now_s

    def compute(self, seconds: float, done: Action) -> None:
        """Use so much CPU time, then go on with `done`."""
        self._advance()
        self._number += 1
        heapq.heappush(self._tasks, (self._advanced_s + seconds, self._number, done))
        self._expect()

    def _expect(self) -> None:
        self._turn += 1
        if self._tasks:
            turn = self._turn
            left_s = max(0.0, self._tasks[0][0] - self._advanced_s)
            self._events.after(left_s / self._rate(), lambda: self._end(turn))

    def _end(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._advance()
        _, _, done = heapq.heappop(self._tasks)
        self._expect()
        done()


class Server:
    """A process that does one thing after the other on its host's cores: an API process, a Redis."""

    def __init__(self, host: HostCpu) -> None:
        self.host = host
        self.busy_s = 0.0  # CPU time that it has used
        self._waiting: deque[tuple[float, Action]] = deque()
        self._is_busy = False

    def work(self, seconds: float, done: Action) -> None:
        self._waiting.append((seconds, done))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        self._is_busy = bool(self._waiting)
        if not self._waiting:
            return
        seconds, done = self._waiting.popleft()
        self.busy_s += seconds

        def ended() -> None:
            done()
            self._next()

        self.host.compute(seconds, ended)
