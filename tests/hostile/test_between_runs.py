"""What one run could tell the next through the kernel: sockets in flight, counters, locks, the zygote's memory."""

from __future__ import annotations

import pytest

from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Options, Output, Program, RunSuite, Stop

LIMITS = Limits(cpu_s=4)


def run(sandbox: Sandbox, source: str, suite: RunSuite | None = None, options: Options | None = None) -> Output:
    program = Program("python", source)
    report = judge(program, suite or RunSuite(), LIMITS, Stop(), sandbox, options or Options())
    assert report.output is not None, report
    return report.output


def printed(sandbox: Sandbox, source: str, suite: RunSuite | None = None) -> str:
    output = run(sandbox, source, suite)
    assert output.exit_code == 0, output.stderr
    return output.stdout.decode()


# --- sockets ---------------------------------------------------------------------------------------------------------

SOCKETS = {
    "an abstract name in a cycle": """
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind("\\0L:secret")
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for x in (a, b): socket.send_fds(x, [b"x"], [s.fileno(), a.fileno(), b.fileno()])
os._exit(0)
""",
    "a listener in a cycle of streams": """
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind("\\0L:secret"); s.listen()
a, b = socket.socketpair()
for x in (a, b): socket.send_fds(x, [b"x"], [s.fileno(), a.fileno(), b.fileno()])
os._exit(0)
""",
    "a cycle of its own pair": """
import os, socket
a, b = socket.socketpair()
socket.send_fds(a, [b"x"], [a.fileno(), b.fileno()])
os._exit(0)
""",
    "many cycles by many children": """
import os, socket
for n in range(20):
    if os.fork() == 0:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(f"\\0L:{n}")
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        socket.send_fds(a, [b"x"], [s.fileno(), a.fileno(), b.fileno()])
        socket.send_fds(b, [b"x"], [s.fileno(), a.fileno(), b.fileno()])
        os._exit(0)
for n in range(20): os.wait()
""",
}
NAMES = """
print(open("/proc/self/net/unix").read().splitlines()[1:], open("/proc/self/net/sockstat").readline())
"""


@pytest.mark.parametrize("name", SOCKETS)
def test_a_socket_in_flight_is_not_seen_by_the_next_run(sandbox: Sandbox, name: str) -> None:
    before = printed(sandbox, NAMES)
    for _ in range(3):
        run(sandbox, SOCKETS[name])
        assert printed(sandbox, NAMES) == before


def test_sockets_that_end_with_their_process_cost_no_jail(sandbox: Sandbox) -> None:
    printed(sandbox, "print(1)")
    made = sandbox.num_made
    for source in (
        "import asyncio\nasync def f(): await asyncio.sleep(0)\nasyncio.run(f())",
        "import socket\na, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [0])",
        "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('\\0x'); s.listen()",
        "import multiprocessing as m\nq = m.Queue()\np = m.Process(target=q.put, args=(1,))\n"
        "p.start(); print(q.get()); p.join()",
    ):
        printed(sandbox, source)
    assert sandbox.num_made == made


# --- counters --------------------------------------------------------------------------------------------------------

COUNTERS = """
import os
def child():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    return pid
def file(place):
    with open(place + "/probe", "w") as f: return os.fstat(f.fileno()).st_ino
print(os.getpid(), child())
print(file("/dev/shm"))
"""
MOVES = {
    "nothing": "",
    "processes": "import os\nfor i in range(300):\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
    "threads": "import threading\nfor i in range(300): t = threading.Thread(target=int); t.start(); t.join()",
    "files in /tmp": "import os\nfor i in range(777): open('/tmp/x', 'w').close(); os.unlink('/tmp/x')",
    "files in /dev/shm": "import os\nfor i in range(555): open('/dev/shm/x', 'w').close(); os.unlink('/dev/shm/x')",
    "folders and links": "import os\nfor i in range(100):\n    os.mkdir('/tmp/x'); os.rmdir('/tmp/x')\n"
    "    os.symlink('a', '/dev/shm/y'); os.unlink('/dev/shm/y')",
    "files without names": "import tempfile\nfor i in range(200): tempfile.TemporaryFile(dir='/dev/shm').close()",
    "sockets with names": "import os, socket\nfor i in range(50): socket.socket(socket.AF_UNIX).bind('/dev/shm/s'); "
    "os.unlink('/dev/shm/s')",
}


@pytest.mark.parametrize("name", MOVES)
def test_no_counter_tells_what_an_earlier_run_did(sandbox: Sandbox, name: str) -> None:
    """Process ids and the numbers of files in /dev/shm are those of a new jail."""
    sandbox.discard()
    new = printed(sandbox, COUNTERS)
    run(sandbox, MOVES[name])
    assert printed(sandbox, COUNTERS) == new
    assert new.startswith("2 3\n")


def test_file_numbers_in_tmp_count_our_own_files_alone(sandbox: Sandbox) -> None:
    sandbox.discard()
    number = "import os\nprint(os.stat('/tmp/main.py').st_ino)"
    first = int(printed(sandbox, number))
    for _ in range(3):
        run(sandbox, MOVES["files in /tmp"])
        assert int(printed(sandbox, number)) - first < 10
    seen = [int(printed(sandbox, number)) for _ in range(300)]
    assert max(seen) < 300  # the place is renewed now and then


# --- the zygote's memory ---------------------------------------------------------------------------------------------

SCAN = """
import re
found = 0
mark = bytes([83, 69, 67, 82, 69, 84]) + b"_" + bytes([78, 65, 77, 69])
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        place, rights = line.split()[:2]
        if "r" not in rights or "[v" in line: continue
        start, end = (int(x, 16) for x in place.split("-"))
        memory.seek(start)
        try: data = memory.read(end - start)
        except (OSError, OverflowError, ValueError): continue
        found += len(re.findall(mark + b"[0-9]", data))
print(found)
"""


@pytest.mark.parametrize(
    "suite",
    [
        RunSuite(files=tuple((f"SECRET_NAME{n}.txt", b"x") for n in range(10))),
        RunSuite(files=tuple((f"folder/SECRET_NAME{n}/deep.txt", b"x") for n in range(5))),
        RunSuite(fetch=("SECRET_NAME1", "SECRET_NAME2")),
        RunSuite(files=(("SECRET_NAME7", b"y" * 100_000),), fetch=("SECRET_NAME7",)),
    ],
)
def test_names_of_an_earlier_runs_files_are_in_nobodys_memory(sandbox: Sandbox, suite: RunSuite) -> None:
    run(sandbox, "print(1)", suite)
    run(sandbox, "open('SECRET_NAME' + str(3), 'w').close()\nimport os\nos.mkdir('SECRET_NAME4')")
    assert printed(sandbox, SCAN) == "0\n"


def test_the_scan_finds_what_is_there(sandbox: Sandbox) -> None:
    assert int(printed(sandbox, 'name = "SECRET_NAME" + str(5)\n' + SCAN)) > 0


# --- calls that reach other jails or the host -------------------------------------------------------------------------

REFUSED = {
    "inotify": "libc.inotify_init1(0) if (r := libc.inotify_init()) < 0 else r",
    "aio": "libc.syscall(206, 100, ctypes.byref(ctypes.c_ulong()))",
    "flock of a library": "lock(fcntl.flock, fcntl.LOCK_SH)",
    "dnotify": "lock(fcntl.fcntl, 1026, 0x80000001)",
    "leases": "lock(fcntl.fcntl, 1024, 0)",
    "others' locks": "lock(fcntl.fcntl, fcntl.F_GETLK, bytes(32))",
    "a packet pair": "libc.socketpair(17, 3, 0, (ctypes.c_int * 2)())",
    "an internet pair": "libc.socketpair(2, 1, 0, (ctypes.c_int * 2)())",
    "a netlink pair": "libc.socketpair(16, 3, 0, (ctypes.c_int * 2)())",
    "huge pages in a memory file": "libc.memfd_create(b'x', 4)",
    "limits of the first process": "libc.prlimit(1, 7, ctypes.byref((ctypes.c_ulong * 2)(1, 1)), None)",
    "limits of the first process, in disguise": "libc.syscall(302, ctypes.c_ulong(0x100000001), 7, "
    "ctypes.byref((ctypes.c_ulong * 2)(1, 1)), None)",
}
TRY = """
import ctypes, fcntl, os
libc = ctypes.CDLL(None, use_errno=True)
def lock(call, *args):
    with open("/usr/bin/env", "rb") as file:
        try: call(file, *args)
        except OSError as error: return -1
    return 0
print({call})
"""


@pytest.mark.parametrize("name", REFUSED)
def test_what_reaches_beyond_the_jail_is_refused(sandbox: Sandbox, name: str) -> None:
    assert printed(sandbox, TRY.format(call=REFUSED[name])) == "-1\n"


@pytest.mark.parametrize(
    "source",
    [
        "import os; os.sync()",
        "import fcntl\nf = open('x', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)",
        "import sqlite3\nc = sqlite3.connect('d.db'); c.execute('create table t (x)')\n"
        "c.execute('insert into t values (1)'); c.commit(); "
        "d = sqlite3.connect('d.db'); assert d.execute('select * from t').fetchall() == [(1,)]",
        "import tempfile\nf = tempfile.TemporaryFile(); f.write(b'x')",
        "import socket\na, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'",
        "import os\nos.sched_setaffinity(os.getpid(), os.sched_getaffinity(0))",
        "import os\nos.setpriority(os.PRIO_PROCESS, os.getpid(), 5); assert os.getpriority(os.PRIO_PROCESS, 0) == 5",
        "import os, resource\nresource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (64, 64))",
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))",
        "import getpass, os, pwd\nassert getpass.getuser() == pwd.getpwuid(os.getuid()).pw_name",
        "import os\nopen('/var/tmp/x', 'w').write('x'); assert os.listdir('/tmp').count('x') == 1",
    ],
)
def test_what_stays_within_the_jail_is_allowed(sandbox: Sandbox, source: str) -> None:
    printed(sandbox, source)


# --- the streams' own names ------------------------------------------------------------------------------------------

SAY = {
    "bash": "echo 5 > /dev/stdout; echo e | tee /dev/stderr > /dev/null",
    "perl": "open(my $f, '>', '/dev/stdout') or die $!; print $f \"5\\n\";",
    "javascript": 'require("fs").writeFileSync("/dev/stdout", "5\\n")',
    "cpp": '#include <fstream>\nint main() { std::ofstream f("/proc/self/fd/1"); f << "5\\n"; return !f; }',
    "c": '#include <stdio.h>\nint main(void) { FILE *f = fopen("/dev/fd/1", "w"); return !f || fputs("5\\n", f) < 0; }',
    "ruby": "File.write('/dev/stdout', \"5\\n\")",
    "lua": "local f = assert(io.open('/dev/stdout', 'w')); f:write('5\\n')",
    "python": "open('/dev/stdout', 'w').write('5\\n')",
}


@pytest.mark.parametrize("language", SAY)
@pytest.mark.parametrize("fresh", [False, True])
def test_standard_output_can_be_opened_by_its_name(sandbox: Sandbox, language: str, *, fresh: bool) -> None:
    if language not in {known.name for known in sandbox.languages()}:
        pytest.skip(f"no toolchain of {language} on this host")
    options = Options(fresh_interpreter=fresh)
    if fresh and language != "python":
        options = Options()
    report = judge(Program(language, SAY[language]), RunSuite(), LIMITS, Stop(), sandbox, options)
    assert report.output is not None, report
    assert (report.output.stdout, report.output.exit_code) == (b"5\n", 0), report.output.stderr
