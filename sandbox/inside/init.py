"""PID 1 of a jail: furnishes it, forks one process into it for a job, waits, sweeps, and tells the host what happened.

Who runs where: bubblewrap starts this file as the first process of fresh namespaces. It runs no code but its own and
reads nothing but jobs from the control socket, whose other end only the host holds. At level `strong` it is root with
four capabilities; the process it forks gives up all of them and another uid before it touches the job's program.
Who may block: this process waits for its child without a deadline; the host holds the clock and kills from outside.
Who cleans up: after the main process has ended, everything else in the pid namespace is killed and reaped here, before
the answer is sent, so an answer means "nothing of that job runs any more".
Not promised: that the answer comes (the host must not wait for it for ever).

The wire to the host is `marshal` in both directions: this process is as trusted as the host.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import os
import resource
import stat
import sys

TYPE_CHECKING = False  # the real one costs an import of ten milliseconds
if TYPE_CHECKING:
    from typing import Any, NoReturn

FIRST_FREE_FD = 200  # job descriptors are moved above this number, out of the way of the numbers the job asks for
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_DUMPABLE = 4
CAPABILITY_VERSION = 0x20080522
LIBRARY = tuple(sys.path)
ROLES = {"script": "candidate", "serve": "candidate", "tests": "tests"}  # role of a Python job → file of the kit


def libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def mount(c: Any, kind: str, target: str, flags: int, options: str) -> None:
    if c.mount(kind.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        import ctypes

        raise OSError(ctypes.get_errno(), f"mount {kind} on {target}")


def furnish(c: Any, job: dict[str, Any]) -> None:
    """Mount what bubblewrap cannot limit: /proc with only one's own processes, /tmp and /dev/shm with a size."""
    mount(c, "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2,subset=pid")
    options = f"mode=1777,size={job['tmp_bytes']},nr_inodes={job['tmp_inodes']}"
    mount(c, "tmpfs", "/tmp", MS_NOSUID | MS_NODEV, options)
    mount(c, "tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)


def receive(control: _socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, ancillary, _, _ = control.recvmsg(1 << 20, _socket.CMSG_SPACE(4 * 64))
    if not data:
        sys.exit(0)  # the host went away before it had a job
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += memoryview(payload[: len(payload) // 4 * 4]).cast("i").tolist()
    return marshal.loads(data), fds


def write_files(job: dict[str, Any], fds: list[int]) -> None:
    """The job's own files, in folders and with modes that let it change them."""
    for path, index in job["files"]:
        at = path.find("/", len("/tmp/"))
        while at > 0:
            if not os.path.isdir(path[:at]):
                os.mkdir(path[:at])
                os.chmod(path[:at], 0o777)
            at = path.find("/", at + 1)
        with open(path, "wb") as out, open(fds[index], "rb", closefd=False) as source:
            out.write(source.read())
            os.chmod(out.fileno(), 0o666)


def drop_capabilities(c: Any) -> None:
    """Empty the sets that survive a change of uid; the inheritable one does."""
    header = CAPABILITY_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    if c.capset(header, bytes(24)) != 0:
        raise OSError("capset")


def become(job: dict[str, Any], fds: list[int], status: int, c: Any) -> NoReturn:
    """In the child: give up everything, then turn into the job's program."""
    status = os.dup2(status, FIRST_FREE_FD - 1, inheritable=False)
    os.setsid()
    for index in job["cgroups"]:
        os.write(fds[index], b"0")
    moved = {}
    for target, index in job["fds"].items():
        moved[target] = os.dup2(fds[index], FIRST_FREE_FD + target, inheritable=False)
    program = source = -1
    if job["program"] is not None:
        program = os.dup2(fds[job["program"]], FIRST_FREE_FD - 2, inheritable=False)
    if job["source"] is not None:
        source = os.dup2(fds[job["source"]], FIRST_FREE_FD - 3, inheritable=False)
    for target, fd in moved.items():
        os.dup2(fd, target, inheritable=True)
    top = max(moved) + 1
    os.closerange(top, FIRST_FREE_FD - 3)
    os.closerange(FIRST_FREE_FD, 1 << 20)
    os.chdir("/tmp")
    for name, value in job["rlimits"].items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    if job["uid"] is not None:
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
        drop_capabilities(c)
    c.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    if job["role"] == "exec":
        for ignored in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
            _signal.signal(ignored, _signal.SIG_DFL)
        os.execve(program if program >= 0 else job["argv"][0], job["argv"], dict(os.environ))
    text = b""
    if source >= 0:
        with open(source, "rb") as file:
            text = file.read()
    entry = sys.modules[ROLES[job["role"]]].__dict__[job["role"]]
    for name in ("candidate", "tests", "peer", "remote", "wire", "codec"):
        sys.modules.pop(name, None)
    sys.path[:] = ["/tmp", *LIBRARY, *job["path"]]
    sys.argv[:] = job["argv"]
    os.close(status)
    entry(text)
    os._exit(70)  # a role never returns


def fork(job: dict[str, Any], fds: list[int], c: Any) -> int:
    """Fork the job's main process and return when its program is about to start. Raises OSError with a fault."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            become(job, fds, writer, c)
        except (OSError, ValueError, KeyError) as error:
            os.write(FIRST_FREE_FD - 1, f"{type(error).__name__}: {error}".encode()[:2000])
        finally:
            os._exit(71)
    os.close(writer)
    with open(reader, "rb") as pipe:
        fault = pipe.read()
    if fault:
        os.waitpid(pid, 0)
        raise OSError(fault.decode(errors="replace"))
    return pid


def sweep() -> int:
    """Kill and reap everything else in this pid namespace; returns how many were still there."""
    found = 0
    while True:
        try:
            os.kill(-1, _signal.SIGKILL)
        except ProcessLookupError:
            found += 0  # nobody but us
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return found
        found += 1


def collect(job: dict[str, Any], fds: list[int]) -> list[int]:
    """Copy the named files of the jail out through the host's descriptors; a size for each, -1 where there is none.

    The files lie where the job could write, so the last component is never followed and must be a regular file.
    """
    return [copy_out(path, fds[index], max_bytes) for path, index, max_bytes in job["collect"]]


def copy_out(path: str, target: int, max_bytes: int) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > max_bytes:
            return -1
        copied = 0
        while copied < about.st_size:
            copied += os.sendfile(target, fd, copied, about.st_size - copied)
        return copied
    finally:
        os.close(fd)


def perform(job: dict[str, Any], fds: list[int], c: Any) -> dict[str, Any]:
    write_files(job, fds)
    if job["role"] != "exec":
        __import__(ROLES[job["role"]])
    sys.stdout.flush()
    sys.stderr.flush()
    main = fork(job, fds, c)
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == main:
            break
    orphans = sweep()
    return {
        "status": status,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "max_rss_kb": usage.ru_maxrss,
        "orphans": orphans,
        "collected": collect(job, fds),
    }


def main() -> None:
    os.umask(0o022)
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    control = _socket.socket(fileno=int(sys.argv[1]))
    c = libc()
    c.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    job, fds = receive(control)
    try:
        if job["furnish"]:
            furnish(c, job)
        answer = perform(job, fds, c)
    except OSError as error:
        answer = {"fault": f"{type(error).__name__}: {error}"}
    control.send(marshal.dumps(answer))


if __name__ == "__main__":
    main()
