"""The supervisor: starts the children, starts the fallen again, and ends them in order. One thread, one loop."""

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
from service.up.reaper import start_time

log = logging.getLogger("plaudit.up")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # before a fallen child is started again: doubled each time
STEADY_S = 10.0  # a child that has lived so long has proved that it can start
MAX_FALSE_STARTS = 5  # deaths in a row before the first steady life
PROBE_S = 15.0
JANITOR_GRACE_S = 3.0  # what children get after the supervisor's own death
LEAST_STAGE_S = 2.0  # what each stage gets to stop, however long those before it took
HURRY_S = 1.0  # what it gets after a second signal


@dataclass(slots=True)
class Post:
    """A child's place in the tree, whoever fills it now."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    deaths: int = 0  # in a row
    proved: bool = False
    line: bytes = b""  # of its standard output, not ended yet


class Janitor:
    """The supervisor's end of the janitor's pipe; a dead janitor is replaced and told everything again."""

    def __init__(self, folders: Sequence[Path], keep_open: Sequence[int]) -> None:
        self._folders = folders
        self._keep_open = keep_open
        self._children: dict[int, int] = {}
        self._start()

    def _start(self) -> None:
        script = Path(__file__).with_name("reaper.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(script), str(JANITOR_GRACE_S)],
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
        with contextlib.suppress(BrokenPipeError):  # it died: noticed and mended by `mend`
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def watch(self, pid: int) -> None:
        if (started := start_time(pid)) is not None:
            self._children[pid] = started
            self._write(f"child {pid} {started}")

    def forget(self, pid: int) -> None:
        if self._children.pop(pid, None) is not None:
            self._write(f"gone {pid}")

    def mend(self) -> None:
        if self.process.poll() is not None:
            log.warning("janitor died; a new one takes over", extra={"code": self.process.returncode})
            self.close()
            self._start()

    def close(self) -> None:
        """Let it do its work, and wait for it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Supervisor:
    """Keeps `children` alive until SIGTERM, SIGINT or SIGHUP, or until one of them cannot be.

    `on_ready` gets the announcing child's line once, `on_death` each dead child with its pid and exit code. `folders`
    are removed at the end, whatever the end; descriptors in `keep_open` (locks) are held until that is done.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        drain_s: float,
        folders: Sequence[Path] = (),
        keep_open: Sequence[int] = (),
        on_ready: Callable[[dict[str, Any]], None] | None = None,
        on_death: Callable[[Child, int, int], None] | None = None,
    ) -> None:
        self.posts = [Post(child) for child in sorted(children, key=lambda child: child.stage)]
        self.drain_s = drain_s
        self.on_ready = on_ready
        self.on_death = on_death
        self.exit_code: int | None = None
        self._folders = folders
        self._keep_open = keep_open
        self._signals = 0

    def run(self) -> int:
        """The tree's whole life; answers the exit code."""
        with self._wakeups():
            self.janitor = Janitor(self._folders, self._keep_open)
            try:
                for post in self.posts:
                    if self.exit_code is None:
                        self._start(post)
                        self._await(post)
                while self.exit_code is None:
                    self._sleep(self._until_restart())
                    self.janitor.mend()
                    self._reap()
                    self._revive()
            finally:
                self._stop()
                self.janitor.close()
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
        """Until a signal, a line from a child, or the time is over."""
        pipes = {post.process.stdout.fileno(): post for post in self.posts if post.process and post.process.stdout}
        ready, _, _ = select.select([self._wake, *pipes], [], [], seconds)
        for descriptor in ready:
            if descriptor != self._wake:
                self._listen(pipes[descriptor])
                continue
            numbers = os.read(self._wake, 4096)
            asked = sum(number != signal.SIGCHLD for number in numbers)
            if asked and self.exit_code is None:
                log.info("asked to stop; draining")
                self.exit_code = EXIT_OK
            self._signals += asked

    # --- living ------------------------------------------------------------------------------------------------------

    def _start(self, post: Post) -> None:
        post.started_at, post.restart_at, post.line = time.monotonic(), None, b""
        try:
            post.process = spawn(post.child, subprocess.PIPE if post.child.announces else sys.stderr.fileno())
        except OSError as error:  # no memory to fork, no such program
            log.error("cannot start %s: %s", post.child.name, error)
            self._mourn(post, EXIT_FAILED)
            return
        self.janitor.watch(post.process.pid)
        log.info("started", extra={"child": post.child.name, "child_pid": post.process.pid})

    def _await(self, post: Post) -> None:
        """Wait until a child with a probe serves."""
        until = time.monotonic() + PROBE_S
        while self.exit_code is None and post.child.probe and (trouble := post.child.probe()):
            if time.monotonic() > until:
                log.error("%s does not serve: %s", post.child.name, trouble)
                self.exit_code = EXIT_FAILED
            self._sleep(0.02)
            self._reap()
            self._revive()

    def _listen(self, post: Post) -> None:
        """Read what the announcing child printed; its ready line is passed on once, the rest goes to the logs."""
        assert post.process is not None
        assert post.process.stdout is not None
        chunk = os.read(post.process.stdout.fileno(), 65536)
        if not chunk:
            post.process.stdout.close()
            post.process.stdout = None
            return
        *lines, post.line = (post.line + chunk).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict) and event.get("event") == "ready":
                post.proved, post.deaths = True, 0
                if self.on_ready is not None:
                    self.on_ready(event)
                    self.on_ready = None
            else:
                sys.stderr.buffer.write(line + b"\n")
                sys.stderr.flush()

    def _reap(self) -> None:
        """See who died, end what is left in their process groups, and decide what that means for the tree."""
        for post in self.posts:
            if post.process is None or not _has_ended(post.process.pid):
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(post.process.pid, signal.SIGKILL)  # before the pid is given back, so it is still this group
            code, pid = post.process.wait(), post.process.pid
            if post.process.stdout is not None:
                post.process.stdout.close()
            post.process = None
            self.janitor.forget(pid)
            if self.on_death is not None:
                self.on_death(post.child, pid, code)
            if self.exit_code is None:
                self._mourn(post, code)

    def _mourn(self, post: Post, code: int) -> None:
        """A child died unasked: start it again after a pause, or give up on the tree."""
        lived = time.monotonic() - post.started_at
        if lived >= STEADY_S:
            post.proved, post.deaths = True, 0
        post.deaths += 1
        if not post.proved and code in (EXIT_USAGE, EXIT_HOST):
            log.error("%s cannot run here (exit code %d, its message is above); stopping", post.child.name, code)
            self.exit_code = code
        elif not post.proved and post.deaths >= MAX_FALSE_STARTS:
            log.error("%s died %d times without ever being steady; stopping", post.child.name, post.deaths)
            self.exit_code = EXIT_FAILED
        else:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (post.deaths - 1))
            post.restart_at = time.monotonic() + pause
            log.warning(
                "%s died; starting it again",
                post.child.name,
                extra={"code": code, "lived_s": round(lived, 2), "pause_s": pause},
            )

    def _until_restart(self) -> float | None:
        due = [post.restart_at for post in self.posts if post.restart_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _revive(self) -> None:
        for post in self.posts:
            if post.restart_at is not None and post.restart_at <= time.monotonic() and self.exit_code is None:
                self._start(post)

    # --- ending ------------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """The last stage first. All share `drain_s`, but even the broker gets a moment of its own."""
        began = time.monotonic()
        for stage in sorted({post.child.stage for post in self.posts}, reverse=True):
            self._stop_stage([post for post in self.posts if post.child.stage == stage and post.process], began)

    def _stop_stage(self, posts: list[Post], began: float) -> None:
        now = time.monotonic()
        for post in posts:
            if post.process is not None:
                post.process.terminate()  # the child alone: what it runs in its group is its to end
        while any(post.process is not None for post in posts):
            until = now + HURRY_S if self._signals > 1 else max(began + self.drain_s, now + LEAST_STAGE_S)
            if time.monotonic() >= until:
                break
            self._sleep(max(0.0, until - time.monotonic()))
            self._reap()
        for post in posts:
            if post.process is not None:
                log.warning("%s did not drain in time; killed", post.child.name)
                os.killpg(post.process.pid, signal.SIGKILL)
                os.waitid(os.P_PID, post.process.pid, os.WEXITED | os.WNOWAIT)
        self._reap()


def _has_ended(pid: int) -> bool:
    """Whether a child is dead; its pid stays taken until it is waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
