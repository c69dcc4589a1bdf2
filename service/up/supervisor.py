"""The supervisor: starts the children, restarts those that exit, and stops them in order. One thread, one loop."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import EXIT_FAILED, EXIT_HOST, EXIT_OK, EXIT_USAGE
from service.up.process import Child, spawn
from service.up.procfs import start_time

log = logging.getLogger("plaudit.up")

MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0  # before a child is restarted; doubled each time
STEADY_S = 10.0  # a child that ran for so long can start, if it does not announce that it is ready
MAX_FALSE_STARTS = 5  # exits in a row of a child that was never ready
PROBE_S = 15.0
REAPER_GRACE_S = 3.0  # how long children may take to end after the supervisor's own end
MIN_STAGE_S = 2.0  # how long each stage may take to stop, however long the earlier ones took
HURRY_S = 1.0  # the same after a second signal


@dataclass(slots=True)
class ManagedProcess:
    """A child and the process that runs it now, if any."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    exits: int = 0  # in a row
    proved: bool = False  # it announced that it is ready; if it does not announce, it was steady
    line: bytes = b""  # of its standard output, not ended yet


class Reaper:
    """The supervisor's end of the pipe to the reaper (`reaper.py`). A crashed one is replaced and told everything."""

    def __init__(self, folders: Sequence[Path], keep_open: Sequence[int]) -> None:
        self._folders = folders
        self._keep_open = keep_open
        self._children: dict[int, int] = {}
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.up.reaper", str(REAPER_GRACE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            pass_fds=self._keep_open,
        )
        for folder in self._folders:
            self._write(f"folder {folder}")
        for pid, started in self._children.items():
            self._write(f"child {pid} {started}")

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it crashed: `restart_if_crashed` notices
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def watch(self, pid: int) -> None:
        """End this process, too, after the supervisor's own end."""
        if (started := start_time(pid)) is not None:
            self._children[pid] = started
            self._write(f"child {pid} {started}")

    def forget(self, pid: int) -> None:
        """This process has ended."""
        if self._children.pop(pid, None) is not None:
            self._write(f"gone {pid}")

    def restart_if_crashed(self) -> None:
        if self.process.poll() is not None:
            log.warning("the reaper crashed; a new one takes over", extra={"code": self.process.returncode})
            self.close()
            self._start()

    def close(self) -> None:
        """End its input, and wait until it has done its work."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Supervisor:
    """Keeps children running until SIGTERM, SIGINT or SIGHUP, or until one of them cannot run.

    Args:
        children: started by stage, upwards, and stopped downwards.
        drain_s: how long they may take to stop, together, in seconds.
        folders: removed at the end, however the supervisor ends.
        keep_open: descriptors (locks) that are held until that is done.
        on_ready: called once, with the ready line of the front.
        on_exit: called with each child that exits, its pid and its exit code.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        drain_s: float,
        folders: Sequence[Path] = (),
        keep_open: Sequence[int] = (),
        on_ready: Callable[[dict[str, Any]], None] | None = None,
        on_exit: Callable[[Child, int, int], None] | None = None,
    ) -> None:
        self.processes = [ManagedProcess(child) for child in sorted(children, key=lambda child: child.stage)]
        self.drain_s = drain_s
        self.on_ready = on_ready
        self.on_exit = on_exit
        self.exit_code: int | None = None
        self._folders = folders
        self._keep_open = keep_open
        self._signals = 0

    def run(self) -> int:
        """Start, supervise and stop the tree; returns the exit code."""
        with self._wakeups():
            self.reaper = Reaper(self._folders, self._keep_open)
            try:
                for managed in self.processes:
                    if self.exit_code is None:
                        self._start(managed)
                        self._wait_until_serving(managed)
                while self.exit_code is None:
                    self._sleep(self._until_restart())
                    self.reaper.restart_if_crashed()
                    self._reap()
                    self._restart_due()
            finally:
                self._stop()
                self.reaper.close()
        assert self.exit_code is not None
        return self.exit_code

    @contextlib.contextmanager
    def _wakeups(self) -> Iterator[None]:
        """Signals become bytes in a pipe that the loop sleeps on: nothing runs inside a handler."""
        self._wake, waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(waker, False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        before_fd = signal.set_wakeup_fd(waker)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(waker)

    def _sleep(self, seconds: float | None) -> None:
        """Until a signal, a line from a child, or the end of the time."""
        pipes = {
            managed.process.stdout.fileno(): managed
            for managed in self.processes
            if managed.process and managed.process.stdout
        }
        poll = select.poll()  # `select` takes no descriptor beyond 1023
        for descriptor in (self._wake, *pipes):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000):
            if descriptor != self._wake:
                self._read_output(pipes[descriptor])
                continue
            numbers = os.read(self._wake, 4096)
            asked = sum(number != signal.SIGCHLD for number in numbers)
            if asked and self.exit_code is None:
                log.info("asked to stop; draining")
                self.exit_code = EXIT_OK
            self._signals += asked

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self, managed: ManagedProcess) -> None:
        managed.started_at, managed.restart_at, managed.line = time.monotonic(), None, b""
        try:
            managed.process = spawn(managed.child, subprocess.PIPE if managed.child.announces else sys.stderr.fileno())
        except OSError as error:  # no memory to fork, no such program
            log.error("cannot start %s: %s", managed.child.name, error)
            self._handle_exit(managed, EXIT_FAILED)
            return
        self.reaper.watch(managed.process.pid)
        log.info("started", extra={"child": managed.child.name, "child_pid": managed.process.pid})

    def _wait_until_serving(self, managed: ManagedProcess) -> None:
        """Wait until a child with a probe serves."""
        until = time.monotonic() + PROBE_S
        while self.exit_code is None and managed.child.probe and (trouble := managed.child.probe()):
            if time.monotonic() > until:
                log.error("%s does not serve: %s", managed.child.name, trouble)
                self.exit_code = EXIT_FAILED
            self._sleep(0.02)
            self._reap()
            self._restart_due()

    def _read_output(self, managed: ManagedProcess) -> None:
        """Read what a child printed: the front's ready line is passed on once, the rest goes to the logs."""
        assert managed.process is not None
        assert managed.process.stdout is not None
        chunk = os.read(managed.process.stdout.fileno(), 65536)
        if not chunk:
            managed.process.stdout.close()
            managed.process.stdout = None
        *lines, managed.line = (managed.line + chunk).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict) and event.get("event") == "ready":
                managed.proved, managed.exits = True, 0
                if managed.child.front and self.on_ready is not None:
                    self.on_ready(event)
                    self.on_ready = None
            else:
                sys.stderr.buffer.write(line + b"\n")
                sys.stderr.flush()

    def _read_rest(self, managed: ManagedProcess) -> None:
        """Read what a child that has exited left in its pipe, which a process beyond its group may hold open."""
        assert managed.process is not None
        if managed.process.stdout is not None:
            os.set_blocking(managed.process.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while managed.process.stdout is not None:
                self._read_output(managed)
        if managed.process.stdout is not None:
            managed.process.stdout.close()

    def _reap(self) -> None:
        """Collect the children that exited, kill what is left in their process groups, and act on each exit."""
        for managed in self.processes:
            if managed.process is None or not _has_ended(managed.process.pid):
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(managed.process.pid, signal.SIGKILL)  # before `wait` frees the pid: it is still this group
            code, pid = managed.process.wait(), managed.process.pid
            self._read_rest(managed)
            managed.process = None
            self.reaper.forget(pid)
            if self.on_exit is not None:
                self.on_exit(managed.child, pid, code)
            if self.exit_code is None:
                self._handle_exit(managed, code)

    def _handle_exit(self, managed: ManagedProcess, code: int) -> None:
        """A child exited unasked: restart it after a pause, or stop the tree."""
        ran_s = time.monotonic() - managed.started_at
        if ran_s >= STEADY_S and (managed.proved or not managed.child.announces):
            managed.proved, managed.exits = True, 0
        managed.exits += 1
        if not managed.proved and code in (EXIT_USAGE, EXIT_HOST):
            log.error("%s cannot run here (exit code %d, its message is above); stopping", managed.child.name, code)
            self.exit_code = code
        elif not managed.proved and managed.exits >= MAX_FALSE_STARTS:
            log.error("%s exited %d times in a row and was never ready; stopping", managed.child.name, managed.exits)
            self.exit_code = EXIT_FAILED
        else:
            pause = min(MAX_PAUSE_S, MIN_PAUSE_S * 2 ** (managed.exits - 1))
            managed.restart_at = time.monotonic() + pause
            log.warning(
                "%s exited; restarting it",
                managed.child.name,
                extra={"code": code, "ran_s": round(ran_s, 2), "pause_s": pause},
            )

    def _until_restart(self) -> float | None:
        due = [managed.restart_at for managed in self.processes if managed.restart_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _restart_due(self) -> None:
        for managed in self.processes:
            if managed.restart_at is not None and managed.restart_at <= time.monotonic() and self.exit_code is None:
                self._start(managed)

    # --- stopping ----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """The last stage first. All share `drain_s`, but each gets at least `MIN_STAGE_S`."""
        began = time.monotonic()
        for stage in sorted({managed.child.stage for managed in self.processes}, reverse=True):
            self._stop_stage(
                [managed for managed in self.processes if managed.child.stage == stage and managed.process], began
            )

    def _stop_stage(self, stage_processes: list[ManagedProcess], began: float) -> None:
        now = time.monotonic()
        for managed in stage_processes:
            if managed.process is not None:
                managed.process.terminate()  # the child alone: it ends what runs in its group
        while any(managed.process is not None for managed in stage_processes):
            until = now + HURRY_S if self._signals > 1 else max(began + self.drain_s, now + MIN_STAGE_S)
            if time.monotonic() >= until:
                break
            self._sleep(max(0.0, until - time.monotonic()))
            self._reap()
        for managed in stage_processes:
            if managed.process is not None:
                log.warning("%s did not drain in time; killed", managed.child.name)
                os.killpg(managed.process.pid, signal.SIGKILL)
                os.waitid(os.P_PID, managed.process.pid, os.WEXITED | os.WNOWAIT)
        self._reap()


def _has_ended(pid: int) -> bool:
    """Whether a child has exited; its pid is not reused until it is waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
