"""What one run leaves, the next one does not find: jails are used again, and nobody may notice.

Run A does its worst and reports that it could (so that a test cannot pass because the attack failed); run B prints all
that it can see of the world around it, and sees what it saw before A ran.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plaudit.grading import Verdict
from sandbox.capabilities import HostCapabilities
from sandbox.judge import judge
from sandbox.owners import state_directory
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, CheckSuite, Limits, Program, Report, StdioCase, StdioSuite, Stop

LIMITS = Limits(cpu_s=5)

LOOK = """
import builtins, ctypes, errno, fcntl, gc, json, locale, os, random, resource, signal, socket, sys, warnings
seen = {}
seen["files"] = [sorted(os.listdir(p)) for p in ("/tmp", "/dev/shm", "/dev")]
seen["modes"] = [(oct(s.st_mode), s.st_uid, s.st_nlink) for s in map(os.stat, ("/tmp", "/dev/shm", "/tmp/main.py"))]
seen["room"] = [(v.f_blocks, v.f_files) for v in map(os.statvfs, ("/tmp", "/dev/shm"))]
seen["marks"] = [os.listxattr(p) for p in ("/tmp", "/dev/shm", "/tmp/main.py")]
seen["processes"] = [p for p in os.listdir("/proc") if p.isdigit()] == [str(os.getpid())]
seen["descriptors"] = len(os.listdir("/proc/self/fd"))
seen["environment"] = sorted(os.environ.items())
seen["mask"] = os.umask(0o22)
seen["limits"] = [resource.getrlimit(n) for n in range(16)]
seen["priority"] = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))
seen["place"] = os.getcwd(), os.path.exists("/tmp/main.py")
seen["signals"] = [str(signal.getsignal(n)) for n in range(1, 65) if n not in (32, 33)]
seen["blocked"] = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
seen["timers"] = [signal.getitimer(n) for n in range(3)], signal.alarm(0)
seen["self"] = [l for l in open("/proc/self/status") if l.startswith(("Name", "Sig", "Shd", "Cap", "Seccomp", "NoNew",
                "THP", "Speculation", "Groups", "Uid"))]
libc = ctypes.CDLL(None)
seen["asked"] = [libc.prctl(n, 0, 0, 0, 0) for n in (2, 3, 30, 37, 39, 42)]
seen["standing"] = open("/proc/self/oom_score_adj").read(), open("/proc/self/coredump_filter").read()
seen["interpreter"] = (sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(), gc.isenabled(),
                       sys.get_int_max_str_digits(), sys.gettrace(), sys.getprofile(), len(sys.meta_path),
                       len(sys.path_hooks), sys.path, sys.argv, sorted(sys.modules), sys.flags, len(warnings.filters))
seen["builtins"] = sorted(vars(builtins)), len([1, 2]), abs(-3), sorted([2, 1]), json.dumps({"a": 1}), hash("x")
seen["language"] = locale.setlocale(locale.LC_ALL)
held = []
for path in ("/usr/bin/env", sys.executable, os.__file__, "/harness/sandbox/inside/framing.pyc"):
    with open(path, "rb") as file:
        for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except OSError as error:
                held.append((path, error.errno))
seen["locks"] = held
names = []
for name in ("left", "beacon"):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect("\\0" + name)
        except OSError as error:
            names.append(errno.errorcode[error.errno])
seen["sockets"] = names
with open("/tmp/room", "wb") as file:
    seen["writable"] = file.write(bytes(1 << 20))
os.unlink("/tmp/room")
random.seed()
import hashlib
for key, value in sorted(seen.items()):
    text = str(value)
    print(key, text if len(text) < 99 else hashlib.sha256(text.encode()).hexdigest())  # a report shows a page of it
"""

LEAVINGS = {
    "files and folders": """
import os
for place in ("/tmp", "/dev/shm"):
    os.makedirs(f"{place}/a/b/c/.hidden")
    open(f"{place}/\\n \\udcff*", "w").write("x")
    os.mkfifo(f"{place}/pipe")
    os.symlink("/etc/shadow", f"{place}/link")
    os.symlink(f"{place}", f"{place}/a/circle")
    os.link(f"{place}/\\n \\udcff*", f"{place}/a/twin")
    os.chmod(f"{place}/a", 0)
""",
    "more files than are removed one by one": """
for n in range(500): open(f"/tmp/{n}", "w").close(); open(f"/dev/shm/{n}", "w").close()
""",
    "a deep path": """
import os
for _ in range(500):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
""",
    "a full disk": """
import errno
try:
    for n in range(100):
        with open(f"/tmp/{n}", "wb") as f: f.write(bytes(8 << 20))
except OSError as error:
    assert error.errno == errno.ENOSPC
""",
    "no inode left": """
try:
    for n in range(10000): open(f"/tmp/{n}", "w").close()
except OSError:
    pass
""",
    "a folder in the place of the program": "import os\nos.unlink('/tmp/main.py'); os.makedirs('/tmp/main.py/x')",
    "a link in the place of the program": """
import os
os.unlink("/tmp/main.py")
os.symlink("/etc/passwd", "/tmp/main.py")
""",
    "modules that hide the library's": """
import os
for name in ("json", "random", "ctypes", "sitecustomize", "usercustomize", "numpy", "codec", "peer"):
    open(f"/tmp/{name}.py", "w").write("print('hijacked')")
os.makedirs("/tmp/__pycache__")
""",
    "marks on files": "import os\nos.setxattr('/tmp/main.py', 'user.left', b'x')",
    "a sleeping daemon with files, a lock and a socket": """
import fcntl, os, socket, sys, time
if os.fork() == 0:
    os.setsid()
    lock = open("/usr/bin/env", "rb")
    fcntl.lockf(lock, fcntl.LOCK_SH)
    beacon = socket.socket(socket.AF_UNIX)
    beacon.bind("\\0beacon")
    beacon.listen()
    held = open("/tmp/held", "w")
    os.unlink("/tmp/held")
    os.write(1, b"")
    time.sleep(100)
time.sleep(0.05)
""",
    "locks of its own": """
import fcntl, os, sys
files = [open(path, "rb") for path in ("/usr/bin/env", sys.executable, os.__file__)]
for file in files: fcntl.lockf(file, fcntl.LOCK_SH)
os._exit(0)
""",
    "a socket's name": """
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("\\0left")
s.listen()
t = socket.socket(socket.AF_UNIX)
t.bind("/tmp/named")
""",
    "shared memory": """
from multiprocessing import shared_memory, resource_tracker
import os
s = shared_memory.SharedMemory("left", create=True, size=1 << 20)
s.buf[:4] = b"left"
resource_tracker.unregister(s._name, "shared_memory")
os._exit(0)
""",
    "a semaphore": """
import multiprocessing, os
lock = multiprocessing.Semaphore(0)
named = os.open("/dev/shm/sem.left", os.O_CREAT | os.O_RDWR)
os._exit(0)
""",
    "mask, limits, priority, place": """
import os, resource
os.umask(0o777)
for n in range(16):
    if n == resource.RLIMIT_CPU: continue  # it would end here
    try: resource.setrlimit(n, (0, resource.getrlimit(n)[1]))
    except (ValueError, OSError): pass
os.nice(5)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.environ["LEFT"] = "x"
os.putenv("PYTHONPATH", "/tmp")
os.chdir("/usr")
""",
    "a place that is gone": "import os\nos.mkdir('/tmp/gone'); os.chdir('/tmp/gone'); os.rmdir('/tmp/gone')",
    "signals and timers": """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
signal.setitimer(signal.ITIMER_PROF, 50)
signal.alarm(50)
""",
    "things asked of the kernel for itself": """
import ctypes
for option, value in ((1, 9), (4, 0), (15, b"left"), (29, 10**9), (33, 0), (36, 1), (41, 1), (42, 1), (35, 14)):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
ctypes.CDLL(None).mlockall(3)
""",
    "a changed interpreter": """
import builtins, decimal, gc, json, locale, random, sys, warnings
builtins.len = builtins.abs = lambda *a: 42
builtins.left = 1
json.dumps = lambda *a, **k: "left"
sys.modules["left"] = sys.modules["json"]
sys.modules["fractions"] = None
sys.setrecursionlimit(77)
sys.setswitchinterval(1)
sys.set_int_max_str_digits(0)
sys.meta_path.clear()
sys.path_hooks.clear()
sys.path.insert(0, "/usr")
gc.disable()
gc.set_threshold(1)
warnings.simplefilter("error")
decimal.getcontext().prec = 1
random.seed(1)
sys.settrace(lambda *a: None)
locale.setlocale(locale.LC_ALL, "C")
""",
    "pokes into the interpreter's memory": """
import ctypes
ctypes.c_long.from_address(id(7) + 24).value = 8
ctypes.memset(id("left") + 40, 0, 1)
""",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "a forbidden call": "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)",
    "an end for want of memory": "hoard = []\nwhile True: hoard.append(bytes([7]) * (8 << 20))",
    "an end for too much output": "while True: print('x' * 60000)",
}


def run(sandbox: Sandbox, source: str, stdout: str = "", limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), StdioSuite((StdioCase("", stdout),)), limits, Stop(), sandbox)


def world(sandbox: Sandbox) -> dict[str, str]:
    """What a fresh program sees around it, by subject."""
    report = run(sandbox, LOOK)
    assert report.tests[0].stderr == ""
    return dict(line.split(" ", 1) for line in report.tests[0].stdout.splitlines())


@pytest.mark.parametrize("name", LEAVINGS)
def test_the_next_program_does_not_see(sandbox: Sandbox, name: str) -> None:
    before = world(sandbox)
    report = run(sandbox, LEAVINGS[name], limits=Limits(cpu_s=5, memory_mb=200))
    if not name.startswith(("a crash", "a forbidden", "an end", "signals")):
        assert report.tests[0].stderr == ""
        assert report.tests[0].detail in ("", "the output differs")
    assert world(sandbox) == before


def test_the_next_program_does_not_see_at_the_weaker_level_either() -> None:
    """Without cgroups the jail sweeps alone; what uses up memory is left out, because nobody stops it at once there."""
    with Sandbox(HostCapabilities("userns", ("cgroups",), ""), state_directory()) as low:
        before = world(low)
        for name, source in LEAVINGS.items():
            if not name.startswith(("an end", "a full disk", "no inode")):
                run(low, source)
                assert world(low) == before, name


def test_the_next_function_does_not_see_what_a_script_left_and_the_other_way_round(sandbox: Sandbox) -> None:
    leave = "open('/tmp/left', 'w').close()\nimport builtins; builtins.left = 1\n"
    look = "import builtins, os\ndef f(): return [sorted(os.listdir('/tmp')), hasattr(builtins, 'left')]\n"
    suite = AssertSuite(("x = f()\nassert x == [['main.py'], False], x",), "", "f")
    assert run(sandbox, leave).verdict is Verdict.PASSED
    assert judge(Program("python", look), suite, LIMITS, Stop(), sandbox).verdict is Verdict.PASSED
    assert judge(Program("python", leave + look), suite, LIMITS, Stop(), sandbox).passed == 0
    assert run(sandbox, look + "print(f())", "[['main.py'], False]").verdict is Verdict.PASSED


def test_the_tests_of_one_program_leave_nothing_for_those_of_the_next(sandbox: Sandbox) -> None:
    leave = """
import builtins, random, json
open("/tmp/left", "w").close()
builtins.left = json.left = 1
builtins.sorted = lambda x: 3
random.seed(5)
"""
    look = """
import builtins, json, os
assert f(os.listdir("/tmp")) == []
assert not hasattr(builtins, "left") and not hasattr(json, "left") and sorted([]) == []
"""
    program = Program("python", "def f(x): return x")
    assert judge(program, AssertSuite((leave + "assert f(1) == 1",), "", "f"), LIMITS, Stop(), sandbox).passed == 1
    assert judge(program, AssertSuite((look,), "", "f"), LIMITS, Stop(), sandbox).verdict is Verdict.PASSED


def test_chance_is_new_in_every_run(sandbox: Sandbox) -> None:
    """A forked interpreter would hand the same numbers to all, and one program could foresee those of another."""
    for source in (
        "import random\nprint(random.random())",
        "import os\nprint(os.urandom(8))",
        "import uuid\nprint(uuid.uuid4())",
        "import tempfile\nprint(tempfile.mktemp())",
        "import secrets\nprint(secrets.token_hex())",
        "import numpy\nprint(numpy.random.random())",
    ):
        outputs = [run(sandbox, source).tests[0].stdout for _ in range(3)]
        if outputs[0] or "numpy" not in source:
            assert len(set(outputs)) == 3, source
    seeded = "import random\nrandom.seed(1)\nprint(random.random())"
    assert len({run(sandbox, seeded).tests[0].stdout for _ in range(2)}) == 1


def test_memory_and_time_of_one_run_are_not_charged_to_the_next(sandbox: Sandbox) -> None:
    greedy = "import time\nhoard = bytearray(100 << 20)\nhoard[::4096] = b'x' * len(hoard[::4096])\n"
    greedy += "while time.process_time() < 0.3: pass\n"
    for _ in range(2):
        first = run(sandbox, greedy).tests[0]
        assert first.peak_memory_mb > 90
        assert first.cpu_ms > 280
        modest = run(sandbox, "print(1)", "1", Limits(cpu_s=5, memory_mb=64))
        assert modest.verdict is Verdict.PASSED
        assert modest.tests[0].peak_memory_mb < 64
        assert modest.tests[0].cpu_ms < 250


def cold_files(most: int) -> list[str]:
    """Large files that every jail may read, taken out of the host's cache."""
    found: list[str] = []
    size = 0
    for folder, _, names in os.walk("/usr/lib"):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink() and path.stat().st_size > 1 << 20 and size < most:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found.append(str(path))
                size += path.stat().st_size
    return found


def test_files_that_a_run_was_the_first_to_read_are_no_memory_of_it_nor_of_the_next(sandbox: Sandbox) -> None:
    """The kernel charges a group for them as long as nobody needs the room."""
    paths = cold_files(256 << 20)
    read = f"for path in {paths}:\n    with open(path, 'rb') as file:\n        while file.read(1 << 20): pass\nprint(1)"
    reader = run(sandbox, read, "1")
    assert reader.verdict is Verdict.PASSED
    group = sandbox.idle["light"][-1].cgroup
    assert group is not None
    if group.charged_bytes() - group.memory_bytes() < 128 << 20:
        pytest.skip("needs a file system whose cache is dropped by posix_fadvise")
    assert reader.tests[0].peak_memory_mb < 64
    hoard = "hoard = bytearray(150 << 20)\nhoard[::4096] = b'x' * len(hoard[::4096])\nprint(1)"
    assert run(sandbox, hoard, "1", Limits(cpu_s=5, memory_mb=64)).verdict is Verdict.MEMORY_LIMIT
    assert run(sandbox, hoard, "1", Limits(cpu_s=5, memory_mb=256)).verdict is Verdict.PASSED


def test_files_in_shared_memory_are_charged_to_who_wrote_them(sandbox: Sandbox) -> None:
    write = "open('/dev/shm/x', 'wb').write(bytes(15 << 20)); open('/tmp/x', 'wb').write(bytes(15 << 20)); print(1)"
    assert run(sandbox, write, "1", Limits(cpu_s=5, memory_mb=128)).tests[0].peak_memory_mb > 29
    assert run(sandbox, "hoard = bytearray(30 << 20); print(1)", "1", Limits(cpu_s=5, memory_mb=64)).passed == 1


def test_limits_of_one_run_do_not_bind_the_next(sandbox: Sandbox) -> None:
    tight = Limits(cpu_s=0.2, wall_s=2, memory_mb=32, output_kb=4, processes=4)
    assert run(sandbox, "print(1)", "1", tight).verdict is Verdict.PASSED
    roomy = Limits(cpu_s=5, memory_mb=512, output_kb=2048, processes=64)
    source = """
import os, threading, time
threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(15)]
for thread in threads: thread.start()
hoard = bytearray(100 << 20)
hoard[::4096] = b"x" * len(hoard[::4096])
print("y" * (1 << 20))
"""
    assert run(sandbox, source, "y" * (1 << 20), roomy).verdict is Verdict.PASSED
    assert run(sandbox, source, "y", tight).verdict not in (Verdict.PASSED, Verdict.WRONG_ANSWER)


def test_a_check_leaves_nothing_for_the_same_check(sandbox: Sandbox) -> None:
    """State that a program keeps in its module is its own run's; a cheat that counts its calls starts anew."""
    source = "calls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return calls\n"
    suite = CheckSuite("def check(candidate):\n    assert candidate(0) == 1\n    assert candidate(0) == 2\n", "f")
    for _ in range(3):
        assert judge(Program("python", source), suite, LIMITS, Stop(), sandbox).verdict is Verdict.PASSED
