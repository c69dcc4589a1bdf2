"""Landlock: the kernel's rules about what a process may access, as a second barrier behind namespaces and uids.

- PID 1 of a jail makes the rules once. Each forked process applies them to itself, irrevocably (about 50 µs).
- Everything may be read and executed; only a job's own folders may be written. TCP, abstract sockets and signals reach
  only the jail's own processes.
- In a jail without namespaces (level `landlock`) these rules are the only barrier on files: only the named trees can be
  read (`Reach`).
- A right that this kernel does not know is left out. A kernel without Landlock gives `abi` 0 and no rules.
"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Step = tuple[Callable[..., Any], tuple[Any, ...]]  # a call that is to be made later

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
ASK_VERSION = 1
PATH_BENEATH = 1
READ = 0b1101  # execute, read file, read dir
LIST = 0b1000  # read dir
WRITE_FILE = 0b10
FIRST_RIGHTS = (1 << 13) - 1  # ABI 1
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # ABI 2, 3, 5
BIND_AND_CONNECT = 0b11  # ABI 4
ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # ABI 6
RULESET_FD = 190  # out of the way of the numbers that jobs ask for
WRITABLE = ("/tmp", "/dev/shm")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Reach:
    """What a locked process may access: trees to read, folders that it may only list, trees to write to.

    Rules only add rights. To exclude a part of a readable tree, the tree's other parts are named instead.
    """

    def __init__(
        self,
        readable: tuple[str, ...] = ("/",),
        writable: tuple[str, ...] = WRITABLE,
        listable: tuple[str, ...] = (),
        proc: tuple[str, ...] = ("/proc",),
    ) -> None:
        self.readable = readable
        self.writable = writable
        self.listable = listable
        self.proc = proc


class Lock:
    """The rules, for the process that is to be locked. `abi` says which rights this kernel knows."""

    def __init__(self, c: Any, abi: int, ruleset: int, reach: Reach) -> None:
        self.c = c
        self.abi = abi
        self.ruleset = ruleset
        self.reach = reach

    def steps(self) -> list[Step]:
        """The calls that apply the rules; a result other than 0 is a failure."""
        return [(self.c.syscall, (RESTRICT_SELF, self.ruleset, 0))] if self.abi else []

    def renewed(self) -> Lock:
        """The same rules, for the folders that have these names now."""
        return prepare(self.c, self.reach)


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, sys.byteorder)


def rights_of(abi: int) -> int:
    rights = FIRST_RIGHTS
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        rights |= right if abi >= since else 0
    return rights


def known_abi(c: Any) -> int:
    """The version of this kernel's Landlock, 0 where there is none. An unmounted securityfs says nothing about it."""
    return max(0, int(c.syscall(CREATE_RULESET, None, 0, ASK_VERSION)))


def prepare(c: Any, reach: Reach) -> Lock:
    """The lock of this kernel. Raises OSError if it has Landlock and refuses the rules."""
    abi = known_abi(c)
    if not abi:
        return Lock(c, 0, -1, reach)
    rights = rights_of(abi)
    network = BIND_AND_CONNECT if abi >= 4 else 0
    scope = ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    asked = (number(rights, 8) + number(network, 8) + number(scope, 8))[:size]
    ruleset = c.syscall(CREATE_RULESET, asked, size, 0)
    if ruleset < 0:
        raise OSError("landlock_create_ruleset")
    for path, allowed in (
        *((path, READ) for path in reach.readable),
        *((path, LIST) for path in reach.listable),
        *((path, rights) for path in reach.writable),
        *((path, READ | WRITE_FILE) for path in reach.proc),
        *((path, READ | WRITE_FILE | rights & (TRUNCATE | IOCTL_DEV)) for path in DEVICES),
    ):
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            allowed &= ~LIST  # a right about folders, refused for anything else
        rule = number(allowed, 8) + number(place, 4)
        done = c.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
        os.close(place)
        if done != 0:
            raise OSError(f"landlock_add_rule {path}")
    os.dup2(ruleset, RULESET_FD, inheritable=False)
    os.close(ruleset)
    return Lock(c, abi, RULESET_FD, reach)
