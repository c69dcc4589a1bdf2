"""One job in one jail: poll for its end, read its counters, kill it, close it."""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sandbox.cgroup import Cgroup, Counters
from sandbox.errors import SandboxError
from sandbox.inside.exit_marks import is_plain
from sandbox.inside.reaper import children
from sandbox.inside.zygote import ORDER
from sandbox.jail import Jail
from sandbox.jail_job import JailJob, JobExit
from sandbox.memory_files import memory_file
from sandbox.procfs import is_running, scheduled_s, tasks_of, waited_s, waits_by_choice
from sandbox.procfs_meter import ProcfsMeter

DEATH_S = 2.0  # from the kill of a job to the message of its jail's PID 1
BASE_STEP = 16 << 20  # how far a jail's own memory may shrink before its limit follows
KERNEL_OWN = BASE_STEP // 4  # room for what the kernel holds for a jail: page tables, stacks


class JobHandle:
    """One job in a jail, from start to sweep: what a judge sees of a jail. Use as a context manager."""

    def __init__(self, jail: Jail, job: JailJob, give_back: Callable[[Jail, int], None]) -> None:
        self.jail = jail
        self.limits = job.limits
        self._give_back = give_back
        self.job_exit: JobExit | None = None
        self.closed = False
        self.own_ns = 0  # CPU time that PID 1 has taken for this job
        self.procfs_meter: ProcfsMeter | None = None
        self._last: Counters | None = None
        self.began = Counters(0, 0, 0, 0)
        jail.num_jobs += 1
        jail.busy = True
        try:
            cgroup = jail.cgroup
            if cgroup is None:
                self.procfs_meter = ProcfsMeter(jail.zygote_pid, job.limits.memory_bytes)
            else:
                used = cgroup.memory_bytes()
                if not jail.memory_base - BASE_STEP < used <= jail.memory_base:
                    jail.memory_base = used + KERNEL_OWN
                cgroup.limit(
                    memory_bytes=job.limits.memory_bytes + jail.memory_base, processes=job.limits.processes + 1
                )
                cgroup.reset_peak()
                self.began = replace(jail.last_counters or cgroup.counters(), peak_memory_bytes=used)
            self._send(job)
        except BaseException as error:
            jail.reusable = False
            self.close()
            if isinstance(error, OSError):
                raise SandboxError(f"a jail does not take its job: {error}") from error
            raise

    def _send(self, job: JailJob) -> None:
        """Send the job to PID 1 with its descriptors. Those that it must keep until the end come first."""
        fds: list[int] = []
        own_fds: list[int] = []

        def index(fd: int, *, owned: bool = False) -> int:
            fds.append(fd)
            if owned:
                own_fds.append(fd)
            return len(fds) - 1

        folder = self.jail.folder

        def in_jail(path: str) -> bytes:
            """A path as PID 1 takes it. Only here /tmp becomes the jail's own folder, where there are no namespaces."""
            return os.fsencode(path if folder is None else folder.place(path))

        try:
            message: dict[str, Any] = {
                "role": job.role,
                "argv": [in_jail(word) for word in job.argv],
                "main": job.main,
                "name": job.name,
                "plain": job.role == "script" and is_plain(job.source),
                "tmp_bytes": job.limits.tmp_bytes,
                "tmp_inodes": job.limits.tmp_inodes,
                "rlimits": job.limits.rlimits(job.num_budgets, count_processes=self.procfs_meter is not None),
                "uid": self.jail.jail_config.uid_of(self.jail.jail_kind),
                "collect": [(in_jail(path), index(fd), most) for path, fd, most in job.collect],
                "keep": len(fds),
                "fds": {target: index(fd) for target, fd in job.fds.items()},
                "program": None if job.program is None else index(job.program),
                "source": index(memory_file("source", job.source), owned=True) if job.role != "exec" else None,
                "files": [(in_jail(path), index(memory_file("file", data), owned=True)) for path, data in job.files],
            }
            socket.send_fds(self.jail.control, [marshal.dumps(tuple(message[name] for name in ORDER))], fds)
        finally:
            for fd in own_fds:
                os.close(fd)

    def fileno(self) -> int:
        """Readable when the job has ended, or when the jail is gone."""
        return self.jail.control.fileno()

    def poll(self) -> JobExit | None:
        """The job's end, if it has come. Raises SandboxError if the jail failed before the program could start."""
        if self.job_exit is None and select.select([self.jail.control], [], [], 0)[0]:
            try:
                answer = self.jail.receive()
            except SandboxError:
                self.jail.reusable = False
                if not self.counters().oom_kills:
                    raise
                # Short of memory, the kernel killed PID 1 of the jail as well: the job is the cause.
                self.job_exit = JobExit(None, int(signal.SIGKILL), 0.0, 0.0, 0, ())
                return self.job_exit
            self.jail.busy = False
            self.jail.reusable = self.jail.reusable and answer["clean"]
            self.own_ns = answer["own_ns"]
            status = answer["status"]
            killed = os.WIFSIGNALED(status)
            self.job_exit = JobExit(
                exit_code=None if killed else os.WEXITSTATUS(status),
                signal=os.WTERMSIG(status) if killed else None,
                cpu_ms=1000 * (answer["user_s"] + answer["system_s"]),
                max_rss_mb=answer["max_rss_kb"] / 1024,
                orphans=answer["orphans"],
                collected=tuple(answer["collected"]),
            )
        return self.job_exit

    @property
    def meter(self) -> Cgroup | ProcfsMeter:
        meter = self.jail.cgroup or self.procfs_meter
        if meter is None:
            raise SandboxError("the jail was not created")
        return meter

    def is_counted(self) -> bool:
        """Whether the kernel counts, and ends what takes too much. If not, usage has to be sampled."""
        return self.jail.cgroup is not None

    def cpu_ns(self) -> int:
        """CPU time of the job's processes so far, and of PID 1 on its behalf."""
        return self.meter.cpu_ns() - self.began.cpu_ns

    def exceeds_memory(self) -> bool:
        """Whether the host has to act on it. With a cgroup the kernel does."""
        return self.procfs_meter is not None and self.procfs_meter.exceeded()

    def exceeds_disk(self) -> bool:
        """The same for files. If /tmp is a file system of its own, its fixed size is the limit."""
        folder, jail_limits = self.jail.folder, self.limits
        return folder is not None and folder.overflows(jail_limits.tmp_bytes, jail_limits.tmp_inodes)

    def counters(self) -> Counters:
        """What the job has used. Its memory is what came on top of the warm jail's, or its largest resident set."""
        if self._last is not None:
            return self._last
        began, job_exit = self.began, self.job_exit
        if self.procfs_meter is not None and job_exit is not None:
            self.procfs_meter.sample()  # all are in the zygote's totals now
        now = self.meter.counters()
        spent = now.cpu_ns - began.cpu_ns - (self.own_ns if self.procfs_meter is None else 0)
        peak = now.peak_memory_bytes - began.peak_memory_bytes
        if job_exit is not None:  # what sampling has missed, and pages that the job shares with the zygote
            spent = max(spent, int(job_exit.cpu_ms * 1e6))
            peak = max(peak, int(job_exit.max_rss_mb * (1 << 20)))
        counters = Counters(
            spent, max(peak, 0), now.oom_kills - began.oom_kills, now.fork_failures - began.fork_failures
        )
        if job_exit is not None:
            self._last = counters
            self.jail.last_counters = now if self.jail.cgroup is not None else None
        return counters

    @property
    def spent_ns(self) -> int:
        """CPU time of the job's processes, once it is closed; 0 where its jail had to be destroyed."""
        return 0 if self._last is None else self._last.cpu_ns

    def restart_peak(self) -> None:
        """Start the memory's peak from now: the next test gets its own."""
        if self.job_exit is not None:
            return
        if self.jail.cgroup is not None:
            self.jail.cgroup.reset_peak()
        if self.procfs_meter is not None:
            self.procfs_meter.peak_bytes = 0

    def _members(self) -> list[int]:
        """The job's processes, without those of the jail, which outlast it."""
        bwrap = self.jail.process.pid if self.jail.process is not None else 0
        lasting = {bwrap, *children(bwrap)}
        return [pid for pid in self.meter.pids() if pid not in lasting]

    def waits_s(self) -> dict[int, float]:
        """Seconds that each living thread of the job was ready and had no CPU, without threads that asked to wait."""
        return {task: waited_s(task) for task in self._tasks_in_turn()}

    def starved_s(self) -> float:
        """Lower bound of how long a living thread of the job has waited behind other processes so far, in seconds.

        While another thread of the job ran, it may have waited for that one.
        """
        tasks = [scheduled_s(task) for task in self._tasks_in_turn()]
        cpu_s = self.cpu_ns() / 1e9
        return max((waited - max(0.0, cpu_s - ran) for ran, waited in tasks), default=0.0)

    def _tasks_in_turn(self) -> list[int]:
        """The job's living threads, without those that asked to wait."""
        bwrap = self.jail.process.pid if self.jail.process is not None else 0
        try:
            cpus, nice = os.sched_getaffinity(bwrap), os.getpriority(os.PRIO_PROCESS, bwrap)
        except OSError:
            return []
        tasks = [task for pid in self._members() for task in tasks_of(pid)]
        return [task for task in tasks if not waits_by_choice(task, cpus, nice)]

    def is_running(self) -> bool:
        """Whether a process of the job runs now, or is ready to."""
        return any(is_running(pid) for pid in self._members())

    def kill(self) -> None:
        """Kill the job; PID 1 of the jail survives and reports how it ended."""
        self.jail.kill_job()

    def destroy(self) -> None:
        """Kill the whole jail."""
        self.jail.destroy()

    def close(self) -> None:
        """End whatever still runs of the job and give the jail back. Raises SandboxError if something does not end."""
        if self.closed:
            return
        self.closed = True
        try:
            if self.job_exit is None and self.jail.reusable:
                self._end_job()
            if self.jail.reusable:
                self.counters()  # where the next job starts counting
        finally:
            self._give_back(self.jail, self.spent_ns + self.own_ns)

    def _end_job(self) -> None:
        """Kill a job whose result is not needed. A jail that does not confirm it in time is not used again."""
        self.kill()
        try:
            if not select.select([self.jail.control], [], [], DEATH_S)[0] or self.poll() is None:
                self.jail.reusable = False
        except SandboxError:
            self.jail.reusable = False

    def __enter__(self) -> JobHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
