"""A jail: fresh namespaces made once by bubblewrap, a warm first process in them, and one job after another.

- Who runs where: the worker starts bubblewrap. Bubblewrap makes the namespaces and the read-only root and becomes PID
  1, the zygote (`inside/zygote.py`), which enters the jail's cgroup. A job is one fork of it, born in that cgroup, that
  drops to its uid and runs the program.
- Who holds the clock: the worker (`run.py`). A kill goes to the zygote, which ends everything else in its namespace,
  and to the whole jail if that does not help.
- Who cleans up: the zygote kills and deletes what a job left before it answers. A jail that does not report that it is
  clean, or in which anything unexpected happened, is discarded with its bubblewrap and cgroup.
- If the worker is killed: bubblewrap ends with it, PID 1 with bubblewrap, the namespace with PID 1. The next `sweep`
  removes the empty cgroup.
- Without namespaces (`no_namespace.py`, levels `landlock` and `none`): the worker starts the zygote itself, and /tmp
  of a job is a folder of the jail. If the worker is killed, the zygote sees its socket close, ends its job and itself.
"""

from __future__ import annotations

import marshal
import os
import select
import socket
import subprocess
from contextlib import suppress
from typing import Any

from sandbox import languages, no_namespace
from sandbox.bubblewrap import EARLY, bwrap_command, kill_bwrap, zygote_command
from sandbox.cgroup import Cgroup, Counters
from sandbox.errors import SandboxError
from sandbox.harness import HARNESS, PYTEST_FOLDER
from sandbox.inside.reaper import children
from sandbox.jail_config import JailConfig
from sandbox.jail_job import TEST_SIDE, JailKind
from sandbox.memory_files import memory_file
from sandbox.no_namespace import JobFolder

KILL = marshal.dumps("kill")
ANSWER_BYTES = 1 << 14  # more than PID 1 ever says
READY_S = 30.0  # from the start of bubblewrap to a warm interpreter, numpy imported, on a busy host


class Jail:
    """One warm jail. It runs one job at a time (`JobHandle`). `close` ends it with everything in it."""

    def __init__(self, config: JailConfig, sequence: int, jail_kind: JailKind) -> None:
        self.jail_config = config
        self.jail_kind = jail_kind
        self.num_jobs = 0
        self.reusable = True  # whether it can take another job
        self.busy = False  # something of a job may be alive
        self.closed = False
        self.cgroup: Cgroup | None = None
        self.last_counters: Counters | None = None  # of the cgroup when the last job had ended
        self.memory_base = 0  # what the jail itself takes of its cgroup's memory
        self.folder = None if config.no_namespace is None else JobFolder(config.harness.parent / f"work-{sequence}")
        self.control, jail_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The interpreter makes its standard streams over pipes, which is what every program of its kind will have.
        empty, unused = os.pipe2(os.O_CLOEXEC)
        os.close(unused)
        self.stderr_reader, stderr_writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.stderr_reader, False)
        self.process: subprocess.Popen[bytes] | None = None
        seccomp = memory_file("seccomp", config.seccomp)
        try:
            if config.cgroups is not None:
                self.cgroup = Cgroup.make(config.cgroups, f"{config.name}-{sequence}")
            if self.folder is None:
                line, environment = bwrap_command(config, jail_end.fileno(), seccomp), {}
            else:
                line = zygote_command(config.python, config.harness, jail_end.fileno())
                environment = self.folder.environment({**config.environment, **EARLY})
            self.process = subprocess.Popen(
                line,
                stdin=empty,
                stdout=stderr_writer,
                stderr=stderr_writer,
                pass_fds=(jail_end.fileno(), seccomp) if self.folder is None else (jail_end.fileno(),),
                env=environment,
                cwd="/",
                process_group=0,
            )
            jail_end.close()  # or this process would not see the end of PID 1
            os.close(stderr_writer)
            stderr_writer = -1
            self._setup()
        except BaseException as error:
            self.close()
            if self.process is not None:
                self.process.wait()  # killed
            if isinstance(error, OSError):
                raise SandboxError(f"a jail cannot be made: {error}") from error
            raise
        finally:
            jail_end.close()
            for fd in (seccomp, empty, stderr_writer):
                if fd >= 0:
                    os.close(fd)

    def _setup(self) -> None:
        """Tell PID 1 what to prepare, and wait until it has. Raises SandboxError with what it printed."""
        procs = self.cgroup.open_procs() if self.cgroup is not None else []
        setup = {
            "privileged": self.jail_config.uid is not None,
            "no_namespace": self._no_namespace_setup(),
            "package_modules": ["tests" if self.jail_kind in TEST_SIDE else "candidate"],
            "warm_modules": [*languages.LIGHT_MODULES, *languages.WARM_MODULES.get(self.jail_kind, ())],
            "first": [self._pytest_folder()] if self.jail_kind == "pytest" else [],
            "path": list(self.jail_config.packages),
        }
        try:
            socket.send_fds(self.control, [marshal.dumps(setup)], procs)
        finally:
            for fd in procs:
                os.close(fd)
        if not select.select([self.control], [], [], READY_S)[0]:
            raise SandboxError(f"the jail is not ready after {READY_S:g} s; {self._stderr_text()}")
        self.landlock: int = self.receive()["landlock"]
        if self.cgroup is None:
            assert self.process is not None
            self.zygote_pid = self.process.pid if self.folder is not None else next(children(self.process.pid), -1)

    def _pytest_folder(self) -> str:
        """Where pytest lies, seen from inside."""
        return f"{HARNESS if self.folder is None else self.jail_config.harness}/{PYTEST_FOLDER}"

    def _no_namespace_setup(self) -> dict[str, Any] | None:
        config, shared = self.jail_config, self.jail_config.no_namespace
        if shared is None or self.folder is None:
            return None
        return {
            "work": self.folder.path,
            "uid": config.uid_of(self.jail_kind),
            "reaper_uid": shared.reaper_uid,
            "seccomp": config.seccomp,
            "readable": shared.readable if shared.landlock else None,
            "listable": shared.listable,
        }

    def receive(self) -> dict[str, Any]:
        """The next message of PID 1, which has arrived. Raises SandboxError for a fault, or if PID 1 has ended."""
        try:
            data = self.control.recv(ANSWER_BYTES)
        except ConnectionResetError:  # it ended with our message unread
            data = b""
        answer: dict[str, Any] = (
            marshal.loads(data) if data else {"fault": f"PID 1 of the jail is gone; {self._stderr_text()}"}
        )
        if "fault" in answer:
            self.reusable = self.reusable and answer.get("clean", False)
            raise SandboxError(f"the jail failed: {answer['fault']}")
        return answer

    def _stderr_text(self) -> str:
        try:
            text = os.read(self.stderr_reader, 2000).decode(errors="replace").strip()
        except BlockingIOError:
            text = ""
        return text or "it left no message"

    def kill_job(self) -> None:
        """Ask PID 1 to kill everything but itself."""
        with suppress(OSError):  # it is gone, and everything in it
            self.control.send(KILL)

    def destroy(self) -> None:
        """Kill the whole jail. Raises SandboxError if without namespaces some process does not end."""
        self.reusable = False
        if self.process is None:
            return
        if self.folder is None:
            kill_bwrap(self.process)
            return
        shared, uid = self.jail_config.no_namespace, self.jail_config.uid_of(self.jail_kind)
        if uid is None and self.busy:
            no_namespace.end_below(self.process.pid)
        kill_bwrap(self.process)
        if uid is not None and shared is not None and self.busy:
            no_namespace.end_uid(self.jail_config.python, self.jail_config.harness, uid, shared.reaper_uid)
        self.busy = False

    def close(self) -> None:
        """End the jail and whatever still runs in it. Raises SandboxError if something does not end."""
        if self.closed:
            return
        self.closed = True
        try:
            self.destroy()
            if self.cgroup is not None:
                self.cgroup.remove()
            if self.folder is not None and self.process is not None:
                self.process.wait()  # killed
                self.folder.remove()
        finally:
            self.control.close()
            os.close(self.stderr_reader)
