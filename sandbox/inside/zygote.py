"""PID 1 of a jail: a warm interpreter that forks one process per job, waits, sweeps, cleans up, and answers the host.

Who runs where
- bubblewrap starts this file as the first process of new namespaces. It runs only code of this package, and reads only
  the control socket, whose other end only the host holds.
- At level `strong` it is root with four capabilities. The process that it forks gives up all of them and takes
  another uid before it touches the job's program.
- Without namespaces (levels `landlock` and `none`) it is an ordinary process of the host; `no_namespace` has what
  differs.
Who may block
- This process waits for its child and for the host without a deadline. The host holds the clock, sends "kill" first,
  and ends the whole jail from outside if that does not help.
Who cleans up
- After the main process has ended, everything else in the pid namespace is killed and reaped here, and /tmp and
  /dev/shm are emptied, before the answer is sent: an answer means "nothing of that job is left". Where that does not
  hold, the answer says so (`clean`), and the host discards the jail.
What is kept from job to job
- The heap of this process. So no text of a program or a test is ever read here: texts lie in files in memory whose
  descriptors pass through, and only the forked process reads them.
- Names of files and command lines are bytes that are overwritten when the job has ended (`workspace.forget`). What a
  job has left is listed in a forked process, if at all.
Not promised
- That the answer comes; the host must not wait without a deadline.

Messages with the host are `marshal` in both directions: this process is trusted as much as the host.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import gc
import marshal
import os
import resource
import select
import sys
import time

TYPE_CHECKING = False  # the real one costs an import of ten milliseconds
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sandbox.inside.landlock import Step
    from sandbox.inside.workspace import Workspace

    Steps = tuple[list[Step], list[Step]]

FIRST_FREE_FD = 200  # job descriptors are moved above this number, out of the way of the numbers the job asks for
PR_SET_DUMPABLE = 4
CAPABILITY_VERSION = 0x20080522
PACKAGE = "sandbox.inside"  # the name of this package, in a jail as well
ROLES = {  # module of the package → its roles
    "candidate": ("script", "serve", "shared", "audited_script", "audited_serve", "audited_shared"),
    "tests": ("tests",),
}
POOL_MASK, POOL_HEADER = (1 << 14) - 1, 48  # of the interpreter's allocator: its pools, and where a block begins
SMALLEST_LARGE, MAX_FILL_BYTES = 512, 1 << 20


def libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def lazy_memory(c: Any, size: int) -> memoryview:
    """Memory of which only those pages exist that are written to."""
    c.calloc.restype = ctypes.c_void_p
    return memoryview((ctypes.c_char * size).from_address(c.calloc(1, 4 * size))).cast("B")


ORDER = (  # the parts of a job, which come without their names
    "role",
    "argv",
    "main",
    "name",
    "plain",
    "tmp_bytes",
    "tmp_inodes",
    "rlimits",
    "uid",
    "collect",
    "keep",
    "fds",
    "program",
    "source",
    "files",
)
TESTS_ARGV = [b"tests"]  # the command line of the test side
MAX_ORDER_BYTES = 1 << 17  # bytes; an order is never as long
ROOM_FOR_FDS = _socket.CMSG_SPACE(4 * 64)


def receive(control: _socket.socket, buffer: memoryview) -> tuple[dict[str, Any], list[int]]:
    """The host's next order, by way of `buffer`; a "kill" that comes when nothing runs is skipped."""
    while True:
        size, ancillary, _, _ = control.recvmsg_into((buffer,), ROOM_FOR_FDS)
        if not size:
            sys.exit(0)  # the host went away
        order = marshal.loads(buffer[:size])
        buffer[:size] = bytes(size)
        if order == "kill":
            continue
        if type(order) is tuple:
            order = dict(zip(ORDER, order, strict=True))
        fds: list[int] = []
        for level, kind, payload in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fds += memoryview(payload[: len(payload) // 4 * 4]).cast("i").tolist()
        return order, fds


def clear_inheritable_capabilities(c: Any) -> None:
    """Empty the inheritable set: the only one that outlives the change of uid in the processes forked from here."""
    header = CAPABILITY_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    import ctypes

    sets = ctypes.create_string_buffer(24)  # twice 32 bits each of effective, permitted, inheritable
    if c.capget(header, sets) != 0 or c.capset(header, sets.raw[:8] + bytes(4) + sets.raw[12:20] + bytes(4)) != 0:
        raise OSError("capset")


renew: list[Step] = []  # what a forked process calls to be another than its siblings: generators of random numbers
search_path: list[str] = []  # where programs find their modules
ENTRIES: dict[str, Any] = {}  # role of a Python job → its function


latest: list[Any] = [None, None]  # what the steps of the last job came of, and these


def prepare(job: dict[str, Any], fds: list[int], status: int, main: int, workspace: Workspace) -> Steps:
    """What the forked process will do, as calls with their arguments: looked up and put together before the fork, for
    it would be slower, and touch more pages, after it. The first steps arrange descriptors; of the others each that
    answers anything has failed. Most jobs take the same steps; words of their own they must not leave here.
    """
    if job["role"] != "exec":
        names = ENTRIES[job["role"]].__globals__
        names["NAME"], names["PLAIN"] = job["name"], job["plain"]
    if job["files"] or job["argv"] not in ([workspace.main], TESTS_ARGV):
        return steps_of(job, fds, status, main, workspace)
    parts = job["role"], job["fds"], job["rlimits"], job["uid"], job["program"], job["source"], job["argv"]
    key = (parts, tuple(fds), status, main, workspace.lock)
    if key != latest[0]:
        latest[:] = key, steps_of(job, fds, status, main, workspace)
    steps: Steps = latest[1]
    return steps


def steps_of(job: dict[str, Any], fds: list[int], status: int, main: int, workspace: Workspace) -> Steps:
    moves: list[Step] = [
        (_signal.pthread_sigmask, (_signal.SIG_SETMASK, ())),
        (os.dup2, (status, FIRST_FREE_FD - 1, False)),
    ]
    targets = job["fds"].items()
    moves += [(os.dup2, (fds[index], FIRST_FREE_FD + target, False)) for target, index in targets]
    if job["program"] is not None:
        moves.append((os.dup2, (fds[job["program"]], FIRST_FREE_FD - 2, False)))
    if job["source"] is not None:
        moves.append((os.dup2, (fds[job["source"]], FIRST_FREE_FD - 3, False)))
    if main >= 0:
        moves.append((os.dup2, (main, FIRST_FREE_FD - 4, False)))
    moves += [(os.dup2, (FIRST_FREE_FD + target, target, True)) for target, _ in targets]
    drops: list[Step] = [(os.setsid, ()), (os.chdir, (workspace.work,)), *workspace.steps_before_limits()]
    for which, value in job["rlimits"]:
        hard = resource.getrlimit(which)[1] if which == resource.RLIMIT_STACK else value  # memory bounds the stack
        drops.append((resource.setrlimit, (which, (value, hard))))
    uid = job["uid"]
    if uid is not None:
        drops += [(os.setresgid, (uid, uid, uid)), (os.setresuid, (uid, uid, uid))]
    drops += workspace.lock_steps()
    drops.append((os.closerange, (max(job["fds"]) + 1, FIRST_FREE_FD - 4)))
    drops.append((os.closerange, (FIRST_FREE_FD, 1 << 20)))
    drops.append((workspace.c.prctl, (PR_SET_DUMPABLE, 1, 0, 0, 0)))
    if job["role"] != "exec":
        drops += renew
        drops.append((sys.path.extend, (search_path,)))
        if job["argv"] in ([workspace.main], TESTS_ARGV):
            sys.argv[:] = map(os.fsdecode, job["argv"])
        else:  # the job's own words, which this process must not keep
            drops.append((set_argv, (job["argv"],)))
        if job["files"]:
            drops.append((hide_modules, (job["files"],)))
    return moves, drops


def set_argv(words: list[bytes]) -> None:
    sys.argv[:] = map(os.fsdecode, words)


def hide_modules(files: list[tuple[bytes, int]]) -> None:
    """A module of the job's own hides one of the library."""
    for path, _ in files:
        sys.modules.pop(os.fsdecode(path).rpartition("/")[2].removesuffix(".py"), None)


def become(job: dict[str, Any], moves: list[Step], drops: list[Step], size: int, main: int, entry: Any) -> NoReturn:
    """In the child: give up all privileges, then start the job's program, whose source has so many bytes."""
    for call, words in moves:
        call(*words)
    for call, words in drops:
        if call(*words):
            raise OSError(0, f"{call.__name__} failed")
    if entry is None:
        for ignored in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
            _signal.signal(ignored, _signal.SIG_DFL)
        program = job["argv"][0] if job["program"] is None else FIRST_FREE_FD - 2
        os.execve(program, job["argv"], dict(os.environ))
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    text = os.read(FIRST_FREE_FD - 3, size)  # a file in memory comes whole
    if main >= 0:
        os.write(FIRST_FREE_FD - 4, text)
        os.close(FIRST_FREE_FD - 4)
    os.close(FIRST_FREE_FD - 3)
    os.close(FIRST_FREE_FD - 1)
    entry(text)
    os._exit(70)  # a role never returns


class ForkServer:
    """Makes processes, and learns how they ended.

    The bare `fork` of the C library is enough here and a third cheaper than `os.fork`: all that the interpreter does
    after it is to mend the locks of a process of several threads and to call its modules' hooks, and this one has a
    single thread; of the hooks only those in `renew` matter. SIGCHLD is blocked and read from a descriptor, so that no
    handler can meet a forked process.
    """

    def __init__(self, control: _socket.socket) -> None:
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

    def wait(self, pid: int, workspace: Workspace) -> tuple[int, Any]:
        """Wait for the main process, and kill everything if the host says so. Orphans that end meanwhile are reaped."""
        while True:
            for fd, _ in self.poller.poll():
                if fd != self.ends:
                    if not self.control.recv(1 << 10):
                        sys.exit(0)  # the host went away
                    workspace.kill()
                    continue
                os.read(self.ends, 1 << 10)
                ended, status, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    return status, usage
                reap_orphans(pid)


def begin(
    job: dict[str, Any], fds: list[int], main: int, workspace: Workspace, fork_server: ForkServer
) -> tuple[int, int]:
    """Fork the job's main process: its pid, and a descriptor that has a fault to tell if its program never began."""
    reader, writer = os.pipe()
    moves, drops = prepare(job, fds, writer, main, workspace)
    size = 0 if job["source"] is None else os.fstat(fds[job["source"]]).st_size
    entry = ENTRIES.get(job["role"])
    workspace.before_fork()
    pid = fork_server.fork()
    if pid == 0:
        try:
            become(job, moves, drops, size, main, entry)
        finally:  # only our own fault leads here, whatever it is
            error = sys.exc_info()[1]
            try:
                os.write(FIRST_FREE_FD - 1, f"{type(error).__name__}: {error}".encode()[:2000])
            finally:  # the program had started, and nothing reads the descriptor
                os._exit(71)
    os.close(writer)
    return pid, reader


def reap_orphans(main: int) -> None:
    """Reap those that have ended, except the main process: until then each counts against the job's limit."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == main:
            return
        os.waitpid(ended.si_pid, 0)


def perform(job: dict[str, Any], fds: list[int], workspace: Workspace, fork_server: ForkServer) -> dict[str, Any]:
    began_ns = time.process_time_ns()
    workspace.resize(job["tmp_bytes"], job["tmp_inodes"])
    main = workspace.write_files(job, fds)
    pid, fault_reader = begin(job, fds, main, workspace, fork_server)
    if main >= 0:
        os.close(main)
    for fd in fds[job["keep"] :]:  # what only the child needs
        os.close(fd)
    del fds[job["keep"] :]
    status, usage = fork_server.wait(pid, workspace)
    fault = os.read(fault_reader, 4096)
    os.close(fault_reader)
    orphans = workspace.sweep()
    collected = workspace.collect(job, fds) if job["collect"] else []
    files = [path for path, _ in job["files"]]
    clean = workspace.tidy([workspace.main, *files] if job["main"] else files)
    if files or collected or job["argv"] not in ([workspace.main], TESTS_ARGV):
        workspace.forget([*job["argv"], *files, *(path for path, _, _ in job["collect"])])
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


def load(names: list[str]) -> dict[str, Any]:
    """Import modules of this package, and remove them and the package from `sys.modules`, for no program to find."""
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    loaded = {}
    for name in names:
        __import__(f"{PACKAGE}.{name}")
        loaded[name] = sys.modules[f"{PACKAGE}.{name}"]
    sys.path.pop(0)
    codec = sys.modules["sandbox.judge.codec"]
    for _ in range(20):  # code that has run is already specialised, so its pages stay shared after a fork
        codec.decode(codec.loads(codec.dumps(codec.encode({"a": [1, 2.5, "b"], "c": (True, None)}))))
    for name in ("tests_state", "program_state"):
        if f"{PACKAGE}.{name}" in sys.modules:
            sys.modules[f"{PACKAGE}.{name}"].warm_up()
    if f"{PACKAGE}.warmup" in sys.modules:
        sys.modules[f"{PACKAGE}.warmup"].warm()
    for name in list(sys.modules):
        if name.partition(".")[0] == "sandbox":
            del sys.modules[name]
    return loaded


def warm(setup: dict[str, Any], work: str) -> None:
    """Import what most programs would import themselves, and run the compiler once."""
    import site

    site.setquit()
    site.sethelper()
    site.setcopyright()
    sys.path[:] = [*setup["first"], *sys.path, *setup["path"]]
    for name in setup["warm_modules"]:
        __import__(name)
    generator = sys.modules["random"].seed.__self__
    renew.append((super(type(generator), generator).seed, ()))  # what is left of its `seed` where nothing was drawn yet
    if "numpy" in setup["warm_modules"]:
        renew.append((sys.modules["numpy"].random.seed, ()))
    if "threading" in sys.modules:
        renew.append((sys.modules["threading"].main_thread()._set_native_id, ()))
    for call, _ in renew:
        call()  # the first time it imports what it needs
    namespace: dict[str, Any] = {}
    exec(compile("def f(x: int = 1) -> str:\n    return f'{x}'\ny = [f(i) for i in range(3)]\n", "", "exec"), namespace)
    sys.orig_argv[:] = ["python3", f"{work}/main.py"]
    search_path[:] = [work, *sys.path]
    sys.path.clear()  # this process imports nothing any more, least of all from where programs write
    gc.collect()
    fill_free_blocks()
    if hasattr(c := libc(), "malloc_trim"):
        c.malloc_trim(0)
    gc.freeze()


filling: list[object] = []


def fill_free_blocks() -> None:
    """Take the free blocks that lie among objects in use, so that a forked process gets its own from fresh pages: those
    of few pools, side by side, where each gap would cost it the copy of a page.
    """
    for size in range(16, SMALLEST_LARGE + 1, 16):
        taken = 0
        while taken < MAX_FILL_BYTES:
            block = object() if size == 16 else complex(size) if size == 32 else bytes(size - bytes.__basicsize__)
            if (id(block) & POOL_MASK) == POOL_HEADER:
                break
            filling.append(block)
            taken += size


def main() -> None:
    os.umask(0o022)
    os.environ.pop("LD_BIND_NOW", None)  # it was meant for us
    control = _socket.socket(fileno=int(sys.argv[1]))
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # which the first process of a namespace never feels
    c = libc()
    c.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    buffer = lazy_memory(c, MAX_ORDER_BYTES)
    setup, fds = receive(control, buffer)
    try:
        for fd in fds:
            os.write(fd, b"0")
            os.close(fd)
        workspace, modules = open_workspace(c, setup)
        for name in setup["package_modules"]:
            modules[name].MAIN, modules[name].HARNESS = os.fsdecode(workspace.main), os.path.dirname(sys.argv[0])
            ENTRIES.update((role, getattr(modules[name], role)) for role in ROLES[name])
            modules[name].warm_up()
        warm(setup, workspace.work)
        if "candidate" in modules:
            modules["candidate"].interpreter_exit.remember(c.fflush)
            modules["candidate"].stage()
    except (OSError, ImportError) as error:
        control.send(marshal.dumps({"fault": f"{type(error).__name__}: {error}"}))
        return
    control.send(marshal.dumps({"landlock": workspace.lock.abi}))
    try:
        serve(control, workspace, buffer)
    finally:
        workspace.leave()


def open_workspace(c: Any, setup: dict[str, Any]) -> tuple[Workspace, dict[str, Any]]:
    """The workspace of the jobs, with its Landlock rules, and the modules of this package."""
    if setup["privileged"]:
        os.setgroups([])
        clear_inheritable_capabilities(c)
    if setup["no_namespace"] is not None:
        modules = load(["no_namespace", *setup["package_modules"]])
        return modules["no_namespace"].HostWorkspace(c, setup["no_namespace"]), modules
    modules = load(["workspace", *setup["package_modules"]])
    return modules["workspace"].JailWorkspace(c, mounts=setup["privileged"]), modules


def serve(control: _socket.socket, workspace: Workspace, buffer: memoryview) -> None:
    """Run one job after the other, until the host closes the connection."""
    fork_server = ForkServer(control)
    while True:
        job, fds = receive(control, buffer)
        try:
            answer = perform(job, fds, workspace, fork_server)
        except OSError as error:
            workspace.sweep()
            answer = {"fault": f"{type(error).__name__}: {error.strerror}", "clean": False}
        for fd in fds:
            os.close(fd)
        control.send(marshal.dumps(answer))


if __name__ == "__main__":
    main()
