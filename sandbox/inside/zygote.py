"""PID 1 of a jail: a warm interpreter that forks one process a job, waits, sweeps, tidies up, and tells the host.

Who runs where: bubblewrap starts this file as the first process of fresh namespaces. It runs no code but its own and
reads nothing but orders from the control socket, whose other end only the host holds. At level `strong` it is root with
four capabilities; the process it forks gives up all of them and takes another uid before it touches the job's program.
Who may block: this process waits for its child and for the host's word without a deadline; the host holds the clock,
says "kill" here first, and ends the whole jail from outside if that does not help.
Who cleans up: after the main process has ended, everything else in the pid namespace is killed and reaped here, and
/tmp and /dev/shm are emptied, before the answer is sent: an answer means "nothing of that job is left". Where that
cannot be said the answer says so (`clean`), and the host throws the jail away.
Without namespaces (levels `landlock` and `none`) this is an ordinary process of the host; `bare.py` has what differs.
What stays: the heap of this process. So no text of a program or a test is ever read here; texts lie in files in memory
whose descriptors pass through, and only the forked process reads them.
Not promised: that the answer comes (the host must not wait for it for ever).

The wire to the host is `marshal` in both directions: this process is as trusted as the host.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import marshal
import os
import resource
import select
import stat
import sys
import time

TYPE_CHECKING = False  # the real one costs an import of ten milliseconds
if TYPE_CHECKING:
    from typing import Any, NoReturn

FIRST_FREE_FD = 200  # job descriptors are moved above this number, out of the way of the numbers the job asks for
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 2, 4, 8, 32
MNT_DETACH = 2
PR_SET_DUMPABLE = 4
CAPABILITY_VERSION = 0x20080522
ROLES = {  # file of the kit → the roles that it plays
    "candidate": ("script", "serve", "shared", "audited_script", "audited_serve", "audited_shared"),
    "tests": ("tests",),
}
SHARED = {"/tmp": MS_NOSUID | MS_NODEV, "/dev/shm": MS_NOSUID | MS_NODEV | MS_NOEXEC}


def libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def mount(c: Any, kind: str, target: str, flags: int, options: str) -> None:
    if c.mount(kind.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        import ctypes

        raise OSError(ctypes.get_errno(), f"mount {kind} on {target}")


def receive(control: _socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The host's next order; a "kill" that comes when nothing runs any more is none."""
    peeked = bytearray(1)
    while True:
        size = control.recv_into(peeked, 1, _socket.MSG_PEEK | _socket.MSG_TRUNC)
        data, ancillary, _, _ = control.recvmsg(size, _socket.CMSG_SPACE(4 * 64))
        if not data:
            sys.exit(0)  # the host went away
        fds: list[int] = []
        for level, kind, payload in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fds += memoryview(payload[: len(payload) // 4 * 4]).cast("i").tolist()
        order = marshal.loads(data)
        if order != "kill":
            return order, fds


class Room:
    """What a job may write to: /tmp and /dev/shm, of a size, and empty when it begins; and how to end it."""

    work = "/tmp"
    main = "/tmp/main.py"

    def __init__(self, c: Any, broom: Any, *, mounts: bool) -> None:
        self.c = c
        self.broom = broom
        self.lock: Any = None  # Landlock's, as soon as the folders stand
        self.mounts = mounts  # whether this process may mount; otherwise bubblewrap has made both, of fixed size
        self.options = "mode=1777,size=64m,nr_inodes=4096"
        if mounts:
            mount(c, "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2,subset=pid")
            for place, flags in SHARED.items():
                mount(c, "tmpfs", place, flags, self.options)

    def resize(self, size: int, inodes: int) -> None:
        options = f"mode=1777,size={size},nr_inodes={inodes}"
        if self.mounts and options != self.options:
            for place, flags in SHARED.items():
                mount(self.c, "tmpfs", place, flags | MS_REMOUNT, options)
            self.options = options

    def tidy(self, files: list[str]) -> bool:
        """Empty both places, of `files` first, which are all that most jobs leave. False if something stays."""
        for path in files:
            try:
                os.unlink(path)
            except OSError:
                continue  # what stands there instead, or was in a folder, goes with the rest
        return all(self.empty(place) for place in SHARED)

    def empty(self, place: str) -> bool:
        if is_empty(place) or (unlink_few(place) and is_empty(place)):
            return True
        if self.mounts:
            if self.c.umount2(place.encode(), MNT_DETACH) != 0:
                return False
            mount(self.c, "tmpfs", place, SHARED[place], self.options)
            self.lock = self.lock.renewed()  # its rules were about the old folder
            return is_empty(place)
        self.broom.remove_below(place)
        return is_empty(place)

    def ready(self) -> None:
        """In the forked process, while it still has its privileges and no limits."""

    def kill(self) -> None:
        """Kill everything else in this pid namespace."""
        os.kill(-1, _signal.SIGKILL)

    def sweep(self) -> int:
        """Kill and reap everything else in this pid namespace; returns how many were still there."""
        found = 0
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # ended by itself, its parent gone before
        except ChildProcessError:
            return 0
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                found += 0  # nobody but us
            try:
                while True:
                    os.waitpid(-1, 0)
                    found += 1
            except ChildProcessError:
                return found

    def leave(self) -> None:
        """The host is gone: the namespace ends with this process."""


def unlink_few(place: str) -> bool:
    """Remove the plain files of a folder if there are few and nothing else; nobody is there to race with."""
    about = os.statvfs(place)
    if about.f_files - about.f_ffree > 10:
        return False
    try:
        for name in os.listdir(place):
            os.unlink(f"{place}/{name}")
    except OSError:
        return False
    return True


def is_empty(place: str) -> bool:
    """Whether a tmpfs holds nothing but its root: one inode, no block."""
    about = os.statvfs(place)
    return about.f_files - about.f_ffree == 1 and about.f_blocks == about.f_bfree


def write_files(job: dict[str, Any], fds: list[int], work: str) -> list[str]:
    """The job's own files, in folders and with modes that let it change them. Returns their paths."""
    for path, index in job["files"]:
        at = path.find("/", len(work) + 1)
        while at > 0:
            if not os.path.isdir(path[:at]):
                os.mkdir(path[:at])
                os.chmod(path[:at], 0o777)
            at = path.find("/", at + 1)
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(out, 0o666)
            size = os.fstat(fds[index]).st_size
            copied = 0
            while copied < size:
                copied += os.sendfile(out, fds[index], copied, size - copied)
        finally:
            os.close(out)
    return [path for path, _ in job["files"]]


def bequeath_nothing(c: Any) -> None:
    """Empty the inheritable set: the only one that outlives the change of uid in the processes forked from here."""
    header = CAPABILITY_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    import ctypes

    sets = ctypes.create_string_buffer(24)  # twice 32 bits each of effective, permitted, inheritable
    if c.capget(header, sets) != 0 or c.capset(header, sets.raw[:8] + bytes(4) + sets.raw[12:20] + bytes(4)) != 0:
        raise OSError("capset")


renew: list[Any] = []  # what a forked process calls to be another than its siblings: generators of random numbers
search_path: list[str] = []  # where programs find their modules
ENTRIES: dict[str, Any] = {}  # role of a Python job → the function of the kit that plays it


def become(job: dict[str, Any], fds: list[int], status: int, room: Room) -> NoReturn:
    """In the child: give up everything, then turn into the job's program."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    status = os.dup2(status, FIRST_FREE_FD - 1, inheritable=False)
    os.setsid()
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
    os.chdir(room.work)
    room.ready()
    for which, value in job["rlimits"]:
        resource.setrlimit(which, (value, value))
    if job["uid"] is not None:
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    room.lock()
    os.closerange(max(moved) + 1, FIRST_FREE_FD - 3)
    os.closerange(FIRST_FREE_FD, 1 << 20)
    room.c.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    if job["role"] == "exec":
        for ignored in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
            _signal.signal(ignored, _signal.SIG_DFL)
        os.execve(program if program >= 0 else job["argv"][0], job["argv"], dict(os.environ))
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    text = os.read(source, os.fstat(source).st_size)  # a file in memory comes whole
    if job["main"]:
        main = os.open(room.main, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.write(main, text)
        os.close(main)
    os.close(source)
    for path, _ in job["files"]:  # a module of the job's own hides one of the library
        sys.modules.pop(path.rpartition("/")[2].removesuffix(".py"), None)
    for call in renew:
        call()
    sys.path += search_path
    sys.argv[:] = job["argv"]
    os.close(status)
    ENTRIES[job["role"]](text)
    os._exit(70)  # a role never returns


class Forks:
    """How processes are made, and how their ends are heard of.

    The bare `fork` of the C library is enough here and a third cheaper than `os.fork`: all that the interpreter does
    after it is to mend the locks of a process of several threads and to call its modules' hooks, and this one has a
    single thread; of the hooks only those in `renew` matter. SIGCHLD is blocked and read from a descriptor, so that no
    handler can meet a forked process.
    """

    def __init__(self, control: _socket.socket) -> None:
        import ctypes

        self.c = ctypes.PyDLL(None, use_errno=True)
        self.errno = ctypes.get_errno
        self.control = control
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
        mask = (1 << _signal.SIGCHLD - 1).to_bytes(128, sys.byteorder)  # a sigset_t
        self.ends = self.c.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.ends < 0:
            raise OSError(self.errno(), "signalfd")
        self.poller = select.poll()
        self.poller.register(self.ends, select.POLLIN)
        self.poller.register(control.fileno(), select.POLLIN)

    def fork(self) -> int:
        pid: int = self.c.fork()
        if pid < 0:
            raise OSError(self.errno(), "fork")
        return pid

    def wait(self, pid: int, room: Room) -> tuple[int, Any]:
        """Wait for the main process, and kill everything if the host says so. Orphans that end meanwhile are reaped."""
        while True:
            ready = [fd for fd, _ in self.poller.poll()]
            if self.ends in ready:
                os.read(self.ends, 1 << 10)
                ended, status, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    return status, usage
                reap_orphans(pid)
            if self.control.fileno() in ready:
                if not self.control.recv(1 << 10):
                    sys.exit(0)  # the host went away
                room.kill()


def begin(job: dict[str, Any], fds: list[int], room: Room, forks: Forks) -> tuple[int, int]:
    """Fork the job's main process: its pid, and a descriptor that has a fault to tell if its program never began."""
    reader, writer = os.pipe()
    pid = forks.fork()
    if pid == 0:
        try:
            become(job, fds, writer, room)
        finally:  # only our own fault leads here, whatever it is
            error = sys.exc_info()[1]
            os.write(FIRST_FREE_FD - 1, f"{type(error).__name__}: {error}".encode()[:2000])
            os._exit(71)
    os.close(writer)
    return pid, reader


def reap_orphans(main: int) -> None:
    """Bury those that have ended, but for the main process: until then each counts against the job's limit."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == main:
            return
        os.waitpid(ended.si_pid, 0)


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


def perform(job: dict[str, Any], fds: list[int], room: Room, forks: Forks) -> dict[str, Any]:
    began_ns = time.process_time_ns()
    room.resize(job["tmp_bytes"], job["tmp_inodes"])
    files = write_files(job, fds, room.work)
    pid, told = begin(job, fds, room, forks)
    for fd in fds[job["keep"] :]:  # what only the child needs
        os.close(fd)
    del fds[job["keep"] :]
    status, usage = forks.wait(pid, room)
    fault = os.read(told, 4096)
    os.close(told)
    orphans = room.sweep()
    collected = collect(job, fds)
    clean = room.tidy([*files, room.main] if job["main"] else files)
    if fault:
        return {"fault": fault.decode(errors="replace"), "clean": clean}
    return {
        "status": status,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "max_rss_kb": usage.ru_maxrss,
        "orphans": orphans,
        "collected": collected,
        "clean": clean,
        "own_ns": time.process_time_ns() - began_ns,
    }


def load(files: list[str]) -> dict[str, Any]:
    """Import files of the kit, and let no program find them among the modules."""
    before = set(sys.modules)
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    loaded = {name: __import__(name) for name in files}
    sys.path.pop(0)
    codec = sys.modules["codec"]
    for _ in range(20):  # code that has run adapts itself no more, and its pages stay shared after a fork
        codec.decode(codec.loads(codec.dumps(codec.encode({"a": [1, 2.5, "b"], "c": (True, None)}))))
    for name in set(sys.modules) - before:
        if os.path.dirname(getattr(sys.modules[name], "__file__", None) or "/") == os.path.dirname(sys.argv[0]):
            del sys.modules[name]
    return loaded


def warm(setup: dict[str, Any], work: str) -> None:
    """Import what most programs would import themselves, let the compiler run once, and set the stage."""
    import site

    site.setquit()
    sys.path += setup["path"]
    for name in setup["modules"]:
        __import__(name)
    renew.append(sys.modules["random"].seed)
    if "numpy" in setup["modules"]:
        renew.append(sys.modules["numpy"].random.seed)
    if "threading" in sys.modules:
        renew.append(sys.modules["threading"].main_thread()._set_native_id)
    for call in renew:
        call()  # the first time it imports what it needs
    namespace: dict[str, Any] = {}
    exec(compile("def f(x: int = 1) -> str:\n    return f'{x}'\ny = [f(i) for i in range(3)]\n", "", "exec"), namespace)
    search_path[:] = [work, *sys.path]
    sys.path.clear()  # this process imports nothing any more, least of all from where programs write
    gc.collect()
    gc.freeze()


def main() -> None:
    os.umask(0o022)
    os.environ.pop("LD_BIND_NOW", None)  # it was meant for us
    control = _socket.socket(fileno=int(sys.argv[1]))
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # which the first process of a namespace never feels
    c = libc()
    c.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    setup, fds = receive(control)
    try:
        for fd in fds:
            os.write(fd, b"0")
            os.close(fd)
        room, kit = furnish(c, setup)
        for name in setup["kit"]:
            kit[name].MAIN, kit[name].HARNESS = room.main, os.path.dirname(sys.argv[0])
            ENTRIES.update((role, getattr(kit[name], role)) for role in ROLES[name])
        warm(setup, room.work)
    except (OSError, ImportError) as error:
        control.send(marshal.dumps({"fault": f"{type(error).__name__}: {error}"}))
        return
    control.send(marshal.dumps({"landlock": room.lock.abi}))
    try:
        serve(control, room)
    finally:
        room.leave()


def furnish(c: Any, setup: dict[str, Any]) -> tuple[Room, dict[str, Any]]:
    """The place where jobs run, with its lock, and the files of the kit."""
    if setup["privileged"]:
        os.setgroups([])
        bequeath_nothing(c)
    if setup["bare"] is not None:
        kit = load(["bare", *setup["kit"]])
        return kit["bare"].BareRoom(c, setup["bare"]), kit
    kit = load(["landlock", "broom", *setup["kit"]])
    room = Room(c, kit["broom"], mounts=setup["privileged"])
    room.lock = kit["landlock"].prepare(c, kit["landlock"].Reach())
    return room, kit


def serve(control: _socket.socket, room: Room) -> None:
    """One job after the other, until the host goes away."""
    forks = Forks(control)
    while True:
        job, fds = receive(control)
        try:
            answer = perform(job, fds, room, forks)
        except OSError as error:
            room.sweep()
            answer = {"fault": f"{type(error).__name__}: {error}", "clean": False}
        for fd in fds:
            os.close(fd)
        control.send(marshal.dumps(answer))


if __name__ == "__main__":
    main()
