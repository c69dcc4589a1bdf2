"""Work for executors of a Ray cluster, importable on its nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plaudit.errors import HostLacks, InfraError

Work = Callable[[list[int]], list[int]]


@contextmanager
def doubling(poison: int | None = None) -> Iterator[Work]:
    """Doubles numbers; the process ends on the one that is poison."""

    def work(items: list[int]) -> list[int]:
        if poison in items:
            os._exit(1)
        return [2 * item for item in items]

    yield work


@contextmanager
def lacking() -> Iterator[Work]:
    """Cannot be opened here."""
    raise HostLacks("no sandbox")
    yield


@contextmanager
def failing() -> Iterator[Work]:
    """Opens, and raises for every chunk."""

    def work(items: list[int]) -> list[int]:
        raise InfraError(f"no slot for {items}")

    yield work
