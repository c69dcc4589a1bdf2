"""Programs that look around, reach out, or leave something for the next one."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from plaudit.grading import Verdict
from sandbox.jail_config import masked_paths
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, StdioCase, StdioSuite, Stop

LIMITS = Limits(cpu_s=2)
ROOT = Path(__file__).resolve().parents[2]


def run(sandbox: Sandbox, source: str, stdout: str = "", *, stdin: str = "", language: str = "python") -> Report:
    return judge(Program(language, source), StdioSuite((StdioCase(stdin, stdout),)), LIMITS, Stop(), sandbox)


def printed(sandbox: Sandbox, source: str) -> str:
    report = run(sandbox, source)
    assert report.tests[0].stderr == ""
    return report.tests[0].stdout


def errors_of(sandbox: Sandbox, setup: str, *trials: str) -> list[str]:
    """What each trial raises, by the name of the error number; "-" where it works."""
    lines = ["import ctypes, errno, os, resource, socket", setup, "trials = ["]
    lines += [f"    lambda: {trial}," for trial in trials]
    lines += ["]", "for trial in trials:", "    try:", "        trial()", "        print('-')"]
    lines += ["    except OSError as error:", "        print(errno.errorcode.get(error.errno, error.errno))"]
    return printed(sandbox, "\n".join(lines)).split()


SYSCALL = """
c = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if c.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "")
"""


def test_there_is_no_network_and_no_waiting_for_it(sandbox: Sandbox) -> None:
    report = run(sandbox, "import socket; socket.create_connection(('93.184.216.34', 80))")
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert report.tests[0].wall_ms < 2000
    report = run(sandbox, "import urllib.request; urllib.request.urlopen('http://example.org')")
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert report.tests[0].wall_ms < 3000


def test_no_socket_family_but_unix_exists(sandbox: Sandbox) -> None:
    families = {"AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40}
    trials = [f"socket.socket({number}, socket.SOCK_DGRAM)" for number in families.values()]
    assert errors_of(sandbox, "", *trials) == ["EAFNOSUPPORT"] * len(families)


def test_a_socket_that_listens_outside_cannot_be_reached(sandbox: Sandbox) -> None:
    with socket.socket(socket.AF_UNIX) as beacon:
        beacon.bind(f"\0plaudit-test-{os.getpid()}")
        beacon.listen()
        trial = f"socket.socket(socket.AF_UNIX).connect('\\0plaudit-test-{os.getpid()}')"
        assert errors_of(sandbox, "", trial) == ["ECONNREFUSED"]


def test_the_first_process_of_the_jail_is_out_of_reach(sandbox: Sandbox) -> None:
    paths = [f"open('/proc/1/{name}')" for name in ("mem", "environ", "maps", "cmdline", "status")]
    assert errors_of(sandbox, "", *paths, "os.listdir('/proc/1/fd')") == ["ENOENT"] * 6
    calls = ["call(101, 16, 1, 0, 0)", "call(310, 1, 0, 0, 0, 0, 0)", "os.kill(1, 0)"]
    limits = ["resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))", "os.sched_setaffinity(1, {0})"]
    others = ["os.setpriority(os.PRIO_PROCESS, 1, 5)"]
    assert errors_of(sandbox, SYSCALL, *calls, *limits, *others) == ["EPERM"] * 6


def test_only_oneself_is_seen(sandbox: Sandbox) -> None:
    assert (
        printed(sandbox, "import os; print([p for p in os.listdir('/proc') if p.isdigit()] == [str(os.getpid())])")
        == "True\n"
    )
    trials = [f"open({path!r})" for path in ("/proc/meminfo", "/proc/version", "/etc/shadow")]
    trials += [f"os.listdir({path!r})" for path in ("/home", "/sys", "/var/lib", "/run", "/opt", "/srv")]
    assert set(errors_of(sandbox, "", *trials)) <= {"ENOENT"}


def test_the_product_cannot_be_imported_from_inside(sandbox: Sandbox) -> None:
    source = """
for name in ("sandbox", "service", "training", "pyseccomp", "redis", "torch", "codec", "peer", "candidate", "tests"):
    try:
        __import__(name)
        print(name)
    except ImportError:
        pass
"""
    assert printed(sandbox, source) == ""


def test_the_product_is_covered_where_it_lies_in_a_bound_directory(sandbox: Sandbox) -> None:
    """As in an image where it is installed into the interpreter that programs get."""
    root = str(ROOT)
    plan = sandbox.jail_config
    sandbox.jail_config = replace(plan, binds=(*plan.binds, root), masks=masked_paths([*plan.binds, root]))
    source = f"""
import os, sys
sys.path.insert(0, {root!r})
for name in ("sandbox.sandbox", "service.settings", "training.pipeline.config"):
    try:
        __import__(name)
        print(name)
    except ImportError:
        pass
folders = [os.path.join({root!r}, name) for name in ("sandbox", "service", "training")]
print([os.listdir(folder) if os.path.exists(folder) else [] for folder in folders])  # /tmp is a fresh one
"""
    try:
        assert printed(sandbox, source) == "[[], [], []]\n"
    finally:
        sandbox.jail_config = plan


def test_there_is_no_descriptor_to_write_a_verdict_to(sandbox: Sandbox) -> None:
    source = """
import os
for fd in range(3, 100):
    try:
        os.write(fd, b"PASS")
        print(fd)
    except OSError:
        pass
"""
    assert printed(sandbox, source) == ""


def test_nothing_outside_tmp_can_be_written(sandbox: Sandbox) -> None:
    places = ("/usr/x", "/x", "/dev/x", "/harness/x", "/etc/x", "/usr/lib/x")
    assert errors_of(sandbox, "", *[f"open({place!r}, 'w')" for place in places]) == ["EROFS"] * len(places)


def test_kernel_interfaces_that_cross_walls_are_closed(sandbox: Sandbox) -> None:
    trials = {
        "unshare user": ("call(272, 0x10000000)", "EPERM"),
        "mount": ("call(165, b'none', b'/tmp', b'tmpfs', 0, 0)", "EPERM"),
        "umount": ("call(166, b'/tmp', 2)", "EPERM"),
        "clone new user": ("call(56, 0x10000011, 0, 0, 0, 0)", "EPERM"),
        "clone3": ("call(435, 0, 0)", "ENOSYS"),
        "setns": ("call(308, 0, 0)", "EPERM"),
        "chroot": ("os.chroot('/tmp')", "EPERM"),
        "io_uring": ("call(425, 1, 0)", "EPERM"),
        "keyctl": ("call(250, 0, -1, 0, 0, 0)", "EPERM"),
        "add_key": ("call(248, b'user', b'x', b'y', 1, -1)", "EPERM"),
        "bpf": ("call(321, 0, 0, 0)", "EPERM"),
        "perf": ("call(298, 0, 0, 0, 0, 0)", "EPERM"),
        "userfaultfd": ("call(323, 0)", "EPERM"),
        "shmget": ("call(29, 0, 4096, 0o1600)", "EPERM"),
        "msgget": ("call(68, 0, 0o1600)", "EPERM"),
        "semget": ("call(64, 0, 1, 0o1600)", "EPERM"),
        "memfd_secret": ("call(447, 0)", "EPERM"),
        "open_by_handle": ("call(304, 0, 0, 0)", "EPERM"),
        "personality": ("call(135, 0x0040000)", "EPERM"),
        "setuid": ("os.setuid(0)", "EPERM"),
    }
    wanted = [name for _, name in trials.values()]
    got = errors_of(sandbox, SYSCALL, *[trial for trial, _ in trials.values()])
    assert dict(zip(trials, got, strict=False)) == dict(zip(trials, wanted, strict=True))


def test_limits_cannot_be_raised(sandbox: Sandbox) -> None:
    source = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))"
    assert "not allowed to raise maximum limit" in run(sandbox, source).tests[0].stderr


def test_a_foreign_system_call_interface_is_a_security_violation(sandbox: Sandbox) -> None:
    x32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)"
    assert run(sandbox, x32).verdict is Verdict.SECURITY_VIOLATION
    i386 = """
#include <cstdio>
int main() { int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20)); std::printf("%d", r); }
"""
    assert run(sandbox, i386, language="cpp").verdict is Verdict.SECURITY_VIOLATION


def test_a_setuid_binary_gives_nothing(sandbox: Sandbox) -> None:
    source = """
import os, subprocess
r = subprocess.run(["su", "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
print(r.returncode != 0, r.stdout)
"""
    assert printed(sandbox, source) == "True \n"
    assert "NoNewPrivs:\t1" in printed(sandbox, "print(open('/proc/self/status').read())")


def test_no_capability_and_an_own_uid(sandbox: Sandbox) -> None:
    assert sandbox.jail_config.uid is not None
    source = """
import os
print(os.getresuid(), os.getresgid(), os.getgroups())
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm", "CapInh"))])
"""
    uid = sandbox.jail_config.uid
    assert printed(sandbox, source) == f"{(uid,) * 3} {(uid,) * 3} []\n{['0' * 16] * 3}\n"


def test_a_link_to_a_secret_leads_nowhere(sandbox: Sandbox) -> None:
    source = """
import os
os.symlink("/proc/1/root/etc/shadow", "/tmp/out.txt")
try:
    open("/tmp/out.txt")
except OSError as error:
    print(type(error).__name__)
"""
    assert printed(sandbox, source) in ("FileNotFoundError\n", "PermissionError\n")


def test_nothing_is_left_for_the_next_run(sandbox: Sandbox) -> None:
    leave = """
import os
open("/tmp/left", "w").write("x")
open("/dev/shm/left", "w").write("x")
print(sorted(os.listdir("/tmp")), os.listdir("/dev/shm"))
"""
    assert printed(sandbox, leave) == "['left', 'main.py'] ['left']\n"
    assert printed(sandbox, "import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'))") == "['main.py'] []\n"


def test_no_expected_output_is_anywhere_in_the_process(sandbox: Sandbox) -> None:
    source = """
import gc, sys
mirrored = "tuptuo-1347-detcepxe"
gc.unfreeze()
texts = [repr(o)[:5000] for o in gc.get_objects() if type(o) in (list, dict, tuple)]
frame = sys._getframe().f_back
while frame:
    texts.append(repr(frame.f_locals))
    frame = frame.f_back
print(len(texts) > 100, any(mirrored[::-1] in text for text in texts))
"""
    report = run(sandbox, source, "expected-7431-output")
    assert report.tests[0].stdout == "True False\n"


ORDINARY = {
    "a pool": """
from multiprocessing import Pool
def f(x): return x * x
if __name__ == '__main__':
    with Pool(2) as pool: print(pool.map(f, range(4)))
""",
    "asyncio": """
import asyncio
async def f():
    await asyncio.sleep(0.01)
    return [0, 1, 4, 9]
print(asyncio.run(f()))
""",
    "a shell command": "import subprocess; print(subprocess.check_output(['echo', '[0, 1, 4, 9]'], text=True))",
    "another interpreter": """
import subprocess, sys
print(subprocess.check_output([sys.executable, '-c', 'print([0, 1, 4, 9])'], text=True))
""",
    "a temporary file": """
import tempfile
with tempfile.TemporaryFile('w+') as file:
    file.write('[0, 1, 4, 9]')
    file.seek(0)
    print(file.read())
""",
    "threads": """
import threading
squares = []
threads = [threading.Thread(target=lambda n=n: squares.append(n * n)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(squares))
""",
    "a lock between processes": "import multiprocessing as m\nwith m.Lock(): print([0, 1, 4, 9])",
    "a dataclass in main": """
import dataclasses, pickle
@dataclasses.dataclass
class P: x: 'list[int]'
print(pickle.loads(pickle.dumps(P([0, 1, 4, 9]))).x)
""",
    "exit handlers": "import atexit; atexit.register(print, [0, 1, 4, 9])",
    "sys.exit after the answer": "import sys; print([0, 1, 4, 9]); sys.exit(0)",
    "os._exit after the answer": "import os; print([0, 1, 4, 9], flush=True); os._exit(0)",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_programs_work(sandbox: Sandbox, name: str) -> None:
    report = run(sandbox, ORDINARY[name], "[0, 1, 4, 9]")
    assert (report.verdict, report.tests[0].stderr) == (Verdict.PASSED, "")
