"""What a jail runs, and how it ended: the values that cross between the judge and a jail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sandbox.limits import JailLimits

Role = Literal["script", "serve", "shared", "audited_script", "audited_serve", "audited_shared", "tests", "exec"]
# What the zygote holds: the usual modules, numpy too, the test side, pytest; `helpers` are light and run checkers.
JailKind = Literal["light", "usual", "science", "tests", "pytest", "helpers"]
TEST_SIDE = ("tests", "pytest")


@dataclass(frozen=True, slots=True)
class JailJob:
    """What to run in a jail. Descriptors are the caller's and stay open; `fds` maps numbers in the job to them."""

    role: Role
    argv: tuple[str, ...]
    limits: JailLimits
    fds: Mapping[int, int]
    source: bytes = b""  # text of a Python role
    main: bool = False  # whether the source also lies in the jail, as main.py
    name: str = "__main__"  # what the program's module is called
    piped: bool = False  # whether stdin is a pipe, as for `python3 main.py`; else a file, which can be mapped
    jail_kind: JailKind = "light"
    program: int | None = None  # descriptor of the executable of an `exec`; None: argv[0] is a path
    files: Sequence[tuple[str, bytes]] = ()  # written before the start, readable for the job
    collect: Sequence[tuple[str, int, int]] = ()  # (path, descriptor to copy it to, most bytes)
    num_budgets: int = 1


@dataclass(frozen=True, slots=True)
class JobExit:
    """How a job's main process ended, as the kernel reported it to PID 1 of its jail."""

    exit_code: int | None
    signal: int | None
    cpu_ms: float
    max_rss_mb: float
    orphans: int
    collected: tuple[int, ...]
