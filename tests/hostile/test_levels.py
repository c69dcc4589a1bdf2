"""The levels below strong: what each promises holds, and nothing is promised that does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hostile.test_languages import SUM
from plaudit.grading import Grading, Level, Verdict
from sandbox import languages
from sandbox.capabilities import HostCapabilities, landlock_lacks
from sandbox.errors import IsolationUnavailable, SandboxError
from sandbox.inside.reaper import descendants, processes_of
from sandbox.judge import judge
from sandbox.no_namespace import unreachable
from sandbox.owners import FIRST_REAPER_UID, FIRST_UID, state_directory, sweep
from sandbox.sandbox import Sandbox
from sandbox.selftest import prove
from sandbox.types import (
    AssertSuite,
    Case,
    CheckSuite,
    FunctionSuite,
    Limits,
    Options,
    Program,
    PytestSuite,
    Report,
    RunSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
    UnittestSuite,
)

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
DEFAULT_DOCKER = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,"
    "audit_write,setfcap"
)
NOBODY = 31_113

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which may lower itself")


def outside_python() -> Path | None:
    """An interpreter that other uids can reach: our own, or the system's of the same version."""
    own = languages.python_binary()
    for binary in (own, SYSTEM_PYTHON):
        if binary.exists() and not unreachable([str(binary)]):
            return binary
    return None


def run_outside(code: str, *before: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run code by that interpreter, after a command that takes something away."""
    python = outside_python()
    if python is None:
        pytest.skip(f"needs a Python that other uids can reach ({SYSTEM_PYTHON} is not there)")
    path = os.pathsep.join([str(ROOT), str(ROOT / "client"), *site.getsitepackages()])
    environ = {"PYTHONPATH": path, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    line = [*before, str(python), "-c", code]
    extra = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(line, env=environ, cwd="/", capture_output=True, text=True, timeout=120, check=False, **extra)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def reachable() -> Iterator[None]:
    """Let programs have an interpreter that their uid can reach, where the tests' own lies in somebody's home."""
    python = outside_python()
    if python is None:
        pytest.skip(f"needs a Python that other uids can reach ({SYSTEM_PYTHON} is not there)")
    with pytest.MonkeyPatch.context() as patch:
        if python != languages.python_binary():
            patch.setattr(languages, "python_binary", lambda: python)
            patch.setattr(languages, "python_home", lambda: Path("/usr"))
            patch.setattr(languages, "python_packages", lambda: ())
        yield


def made(level: Level) -> Sandbox:
    if level == "userns" and HostCapabilities.probe().lacks["userns"]:
        pytest.skip("needs namespaces")
    if level == "landlock" and landlock_lacks():
        pytest.skip("; ".join(landlock_lacks()))
    return Sandbox(HostCapabilities(level, ("a better one",), ""), state_directory())


@pytest.fixture(scope="module", params=["userns", "landlock", "none"])
def low(request: pytest.FixtureRequest, reachable: None) -> Iterator[Sandbox]:
    with made(request.param) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def locked(reachable: None) -> Iterator[Sandbox]:
    with made("landlock") as sandbox:
        yield sandbox


def run(sandbox: Sandbox, source: str, stdout: str = "", limits: Limits = Limits(cpu_s=0.5)) -> Report:  # noqa: B008
    return judge(Program("python", source), StdioSuite((StdioCase("", stdout),)), limits, Stop(), sandbox)


def printed(sandbox: Sandbox, source: str) -> str:
    report = run(sandbox, source)
    assert report.tests[0].stderr == ""
    return report.tests[0].stdout.strip()


def test_the_walls_that_each_level_claims_hold(low: Sandbox) -> None:
    prove(low)
    assert low.jail_config.cgroups is None
    assert run(low, "print(1)", "1").isolation == low.level


SORTED = (
    "import sys\ngot, want = (sorted(open(name).read().split()) for name in sys.argv[2:4])\nsys.exit(got != want)\n"
)
REVERSED = "import sys\nword = open(sys.argv[1]).read()\nprint(word, flush=True)\nsys.exit(input() != word[::-1])\n"
PLUS_ONE = (
    '#include "testlib.h"\nint main(int c, char** v) { registerInteraction(c, v); int n = inf.readInt();\n'
    'std::cout << n << std::endl; tout << n; if (ouf.readInt() != 2) quit(_wa, "not 2"); quit(_ok, "2"); }\n'
)
KINDS: list[tuple[str, str, Suite, list[str]]] = [
    (
        "python",
        "print(int(input()) + 1)",
        StdioSuite((StdioCase("1\n", "2"), StdioCase("1\n", "3"))),
        ["passed", "wrong_answer"],
    ),
    (
        "python",
        "def f(x):\n    return x + 1",
        FunctionSuite("f", (Case((1,), {}, 2), Case((1,), {}, 3))),
        ["passed", "wrong_answer"],
    ),
    (
        "python",
        "def f(x):\n    return x + 1",
        AssertSuite(("assert f(1) == 2", "y = f(1)\nassert y == 3")),
        ["passed", "wrong_answer"],
    ),
    (
        "python",
        "def f(x):\n    return x + 1",
        CheckSuite("def check(candidate):\n    assert all(candidate(i) == i + 1 for i in range(5))", "f"),
        ["passed"],
    ),
    (
        "cpp",
        "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x + 1; }",
        StdioSuite((StdioCase("1", "2"), StdioCase("1", "3"))),
        ["passed", "wrong_answer"],
    ),
    (
        "python",
        "print(*open('words').read().split(), 'c')",
        StdioSuite(
            (StdioCase("", "c b a", (("words", b"a b"),)), StdioCase("", "c", (("words", b"c"),))),
            checker=Program("python", SORTED),
        ),
        ["passed", "wrong_answer"],
    ),
    (
        "python",
        "print(*reversed(input()), sep='')",
        StdioSuite((StdioCase("ab", ""), StdioCase("abc", "")), interactor=Program("python", REVERSED)),
        ["passed", "passed"],
    ),
    (
        "cpp",
        "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x + 1; }",
        StdioSuite((StdioCase("1", ""), StdioCase("5", "")), interactor=Program("cpp", PLUS_ONE)),
        ["passed", "wrong_answer"],
    ),
]


@pytest.mark.parametrize(
    ("language", "source", "suite", "verdicts"),
    KINDS,
    ids=[f"{language}-{type(suite).__name__}-{at}" for at, (language, _, suite, _) in enumerate(KINDS)],
)
def test_every_kind_of_suite_gets_its_verdicts(
    low: Sandbox, language: str, source: str, suite: Suite, verdicts: list[str]
) -> None:
    report = judge(Program(language, source), suite, Limits(), Stop(), low)
    assert [test.verdict for test in report.tests] == verdicts


@pytest.mark.parametrize("language", list(SUM))
def test_every_toolchain_works_behind_landlock_alone(locked: Sandbox, language: str) -> None:
    if language not in {known.name for known in languages.installed()}:
        pytest.skip(f"the toolchain of {language} is not installed")
    suite = StdioSuite((StdioCase("40 2\n", "42"),))
    report = judge(Program(language, SUM[language]), suite, Limits(), Stop(), locked)
    assert report.verdict is Verdict.PASSED, (report.compile, report.tests)


SPINS = {
    "fork": "import os\nos.fork()\nwhile True: pass",
    "fork from a thread": """
import os, threading, time
def start():
    if os.fork() == 0:
        while True: pass
    time.sleep(60)
threading.Thread(target=start).start()
""",
    "orphans, each shorter than a look": """
import os, time
def orphan():
    if os.fork() == 0:
        if os.fork() == 0:
            until = time.process_time() + 0.02
            while time.process_time() < until: pass
        os._exit(0)
    os.wait()
while True:
    orphan()
""",
}


@pytest.mark.parametrize("name", list(SPINS))
def test_cpu_time_of_all_processes_is_counted(low: Sandbox, name: str) -> None:
    limits = Limits(cpu_s=0.5, wall_s=5, processes=250)
    report = run(low, SPINS[name], limits=limits)
    assert report.verdict is Verdict.TIME_LIMIT
    if not name.startswith("orphans"):  # the dead that nobody has reaped yet are seen by the kernel only
        assert report.tests[0].detail.startswith("cpu")


def test_memory_is_sampled_and_limited(low: Sandbox) -> None:
    source = "import time\nhoard = bytearray(100 << 20)\nhoard[::4096] = b'x' * len(hoard[::4096])\ntime.sleep(5)"
    report = run(low, source, limits=Limits(cpu_s=2, memory_mb=64))
    assert report.verdict is Verdict.MEMORY_LIMIT


def test_processes_are_limited_by_their_uid(low: Sandbox) -> None:
    source = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(100)
        n += 1
except BlockingIOError:
    print(n < 40)
"""
    report = run(low, source, "True", Limits(cpu_s=2, processes=32))
    assert (report.verdict, report.flags) == (Verdict.PASSED, ("orphans_killed",))


def test_a_hanging_test_costs_only_itself(low: Sandbox) -> None:
    source = "def f(x):\n    while x == 2: pass\n    return x"
    suite = AssertSuite(("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"))
    report = judge(Program("python", source), suite, Limits(cpu_s=0.5), Stop(), low)
    assert [test.verdict for test in report.tests] == ["passed", "time_limit", "passed"]


def test_files_come_and_go_by_the_names_that_programs_know(low: Sandbox) -> None:
    suite = RunSuite(files=(("data/in.txt", b"7"),), fetch=("out.txt",))
    source = """
import os
open("out.txt", "w").write(open("data/in.txt").read() * 2)
print(os.environ["HOME"] == os.getcwd())
"""
    report = judge(Program("python", source), suite, Limits(), Stop(), low)
    assert report.output is not None
    assert (report.output.stdout, report.output.files) == (b"True\n", {"out.txt": b"77"})


def test_nothing_of_a_job_is_there_for_the_next_one(low: Sandbox) -> None:
    source = """
import os
os.makedirs("a/b")
os.mkdir("a/b/c", 0)
os.chmod("a/b", 0o1000)
os.symlink("/etc", "link")
os.mkfifo("pipe")
for number in range(1100):  # deeper than Python can recurse
    os.mkdir("d")
    os.chdir("d")
"""
    before = low.num_made
    assert run(low, source, limits=Limits(cpu_s=20, wall_s=60)).verdict is Verdict.PASSED  # a disk may be slow
    assert printed(low, "import os\nprint(os.listdir('.'))") == "['main.py']"
    assert low.num_made - before <= 1
    assert Path("/etc/passwd").exists()


def test_the_room_of_a_locked_program_has_an_end(locked: Sandbox) -> None:
    """Elsewhere it is a file system of that size; here somebody looks."""
    many = "for number in range(10 ** 6):\n    open(str(number), 'w').close()"
    large = "for number in range(100):\n    open(str(number), 'wb').write(b'x' * (15 << 20))"
    deep = "import os\nwhile True:\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)"
    for source in (many, large, deep):
        report = run(locked, source, limits=Limits(cpu_s=20, wall_s=60))
        assert report.verdict is Verdict.OUTPUT_LIMIT
        assert "were written" in report.tests[0].detail
    assert printed(locked, "import os\nprint(os.listdir('.'))") == "['main.py']"


FURIES = """
import os, signal
for number in range(6):
    if os.fork() == 0:
        os.setsid()
        for other in range(2):
            os.fork()
        while True:
            try:
                os.kill(-1, signal.SIGKILL)  # whoever comes to end them, if they may
            except OSError:
                pass
            if os.fork() == 0:
                os.setsid()
print("done", flush=True)
os._exit(0)
"""


def test_processes_that_kill_whatever_they_can_end_with_their_job(locked: Sandbox) -> None:
    uid = locked.jail_config.uid
    assert uid is not None
    for _ in range(3):
        report = run(locked, FURIES, "done", Limits(cpu_s=2, processes=40))
        assert report.verdict in (Verdict.PASSED, Verdict.RUNTIME_ERROR, Verdict.WRONG_ANSWER, Verdict.TIME_LIMIT)
        assert processes_of(uid) == []
    assert run(locked, "print(1)", "1").verdict is Verdict.PASSED


def test_a_zygote_that_dies_is_our_fault_and_takes_its_job_along(low: Sandbox) -> None:
    low.discard()
    killer = subprocess.Popen(
        [sys.executable, "-c", KILL_ZYGOTE, str(os.getpid())], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    with pytest.raises(SandboxError):
        run(low, "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(30)", limits=Limits(cpu_s=2, wall_s=20))
    assert killer.wait(10) == 0
    if low.jail_config.uid is not None:
        assert until_nobody(low.jail_config.uid)
    assert run(low, "print(1)", "1").verdict is Verdict.PASSED


KILL_ZYGOTE = """
import os, signal, sys, time
from sandbox.inside.reaper import children, descendants
while True:
    for pid in descendants(int(sys.argv[1])):
        try:
            command = open(f"/proc/{pid}/cmdline", "rb").read()
        except OSError:
            continue
        if b"/zygote.pyc" in command and b"bwrap" not in command and list(children(pid)):
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            sys.exit(0)
    time.sleep(0.01)
"""


def until_nobody(uid: int) -> bool:
    deadline = time.monotonic() + 5
    while processes_of(uid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_jail_that_cannot_be_made_again_is_an_error_and_no_lower_level(low: Sandbox) -> None:
    good = low.jail_config
    low.discard()
    low.jail_config = replace(good, harness=Path("/nowhere"))
    try:
        with pytest.raises(SandboxError):
            run(low, "print(1)")
    finally:
        low.jail_config = good
    assert run(low, "print(1)", "1").isolation == low.level


# --- landlock ---------------------------------------------------------------------------------------------------------


def test_a_locked_program_reads_the_toolchains_and_nothing_else(locked: Sandbox) -> None:
    hidden = locked.home / "secret"
    hidden.write_text("expected output")
    hidden.chmod(0o644)
    places = [
        "/etc/passwd",
        "/etc/hostname",
        "/proc/meminfo",
        "/proc/1/status",
        "/proc/net/unix",
        str(hidden),
        str(ROOT / "README.md"),
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/usr/lib/os-release",
        "/proc/self/status",
    ]
    source = f"""
for place in {places!r}:
    try:
        open(place).read()
        print(place)
    except OSError:
        pass
"""
    assert printed(locked, source).split() == places[-2:]


def test_a_locked_program_writes_to_its_folder_and_nowhere_else(locked: Sandbox) -> None:
    folders = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/usr", str(locked.home)]
    source = f"""
import os, tempfile
for folder in {folders!r}:
    try:
        open(folder + "/plaudit-was-here", "w")
        print(folder)
    except OSError:
        pass
print(tempfile.NamedTemporaryFile().name.startswith(os.getcwd() + "/"))
"""
    assert printed(locked, source) == "True"


def test_a_locked_program_sees_nothing_of_the_jail_beside_it(locked: Sandbox) -> None:
    """The test side has a uid and a folder of its own."""
    source = """
import os
def f(x):
    found = []
    home = os.path.dirname(os.getcwd())
    for number in range(200):
        try:
            found += os.listdir(f"{home}/work-{number}")
        except OSError:
            continue
    return found
"""
    suite = AssertSuite(("y = f(1)\nassert y == ['main.py'], y",))
    report = judge(Program("python", source), suite, Limits(), Stop(), locked)
    assert [test.detail for test in report.tests] == [""]


def test_our_packages_are_not_readable_where_they_lie_in_a_readable_folder(
    locked: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from sandbox.jail_config import masked_paths
    from sandbox.no_namespace import around

    assert locked.jail_config.no_namespace is not None
    good = locked.jail_config
    readable, listable = around([*good.binds, str(ROOT)], masked_paths([*good.binds, str(ROOT)]))
    locked.discard()
    locked.jail_config = replace(good, no_namespace=replace(good.no_namespace, readable=readable, listable=listable))  # type: ignore[type-var]
    source = f"""
for name in ("sandbox/sandbox.py", "service/settings.py", "training/__init__.py", "README.md"):
    try:
        open({str(ROOT)!r} + "/" + name).read()
        print(name)
    except OSError:
        pass
"""
    try:
        if not unreachable([str(ROOT)]):
            assert printed(locked, source) == "README.md"
    finally:
        locked.jail_config = good
        locked.discard()


def test_two_programs_of_one_uid_never_run_at_once(locked: Sandbox) -> None:
    from sandbox.jail_job import JailJob
    from sandbox.limits import run_limits

    job = JailJob(role="exec", argv=("/bin/sleep", "60"), limits=run_limits(Limits()), fds={})
    with locked.start(job), pytest.raises(SandboxError, match="one program at a time"):
        locked.start(job)
    assert run(locked, "print(1)", "1").verdict is Verdict.PASSED


OWNER = """
import sys
from sandbox.judge import judge
from sandbox.types import *
from sandbox.capabilities import HostCapabilities
from sandbox.owners import state_directory
from sandbox.sandbox import Sandbox
with Sandbox(HostCapabilities("landlock", (), ""), state_directory()) as sandbox:
    print(sandbox.name, sandbox.jail_config.uid, flush=True)
    source = "import os\\nif os.fork() == 0: os.setsid()\\nwhile True: pass"
    judge(Program("python", source), StdioSuite((StdioCase("", ""),)), Limits(60), Stop(), sandbox)
"""


def test_nothing_survives_a_killed_owner(locked: Sandbox) -> None:
    python = outside_python()
    path = os.pathsep.join([str(ROOT), str(ROOT / "client"), *site.getsitepackages()])
    owner = subprocess.Popen([str(python), "-c", OWNER], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": path})
    assert owner.stdout is not None
    name, uid = owner.stdout.readline().split()
    deadline = time.monotonic() + 10
    while len(processes_of(int(uid))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert until_nobody(int(uid))
    sweep()
    assert not (state_directory() / name).exists()


def test_what_a_dead_zygote_left_is_ended_by_the_next_owner_of_its_uid(reachable: None) -> None:
    with made("landlock") as sandbox:
        uid = sandbox.jail_config.uid
        assert uid is not None
    left = subprocess.Popen(["/bin/sleep", "60"], user=uid, group=uid, extra_groups=[], start_new_session=True)
    with made("landlock") as sandbox:
        if sandbox.jail_config.uid == uid:
            assert left.wait(5) == -signal.SIGKILL
    if left.poll() is None:
        left.kill()
        left.wait()


@pytest.mark.parametrize("uid", [FIRST_UID, FIRST_UID + 1, FIRST_REAPER_UID])
def test_a_uid_that_somebody_else_uses_is_left_alone(reachable: None, tmp_path: Path, uid: int) -> None:
    """Programs are ended by uid, and a stranger would go with them. A new state directory knows no uid as ours."""
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=uid, group=uid, extra_groups=[])
    try:
        with pytest.raises(IsolationUnavailable, match="is used on this host"):
            Sandbox(HostCapabilities("landlock", (), ""), tmp_path)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# --- choosing ---------------------------------------------------------------------------------------------------------

DOCKER = """
import json
from sandbox.errors import IsolationUnavailable
from sandbox.judge import judge
from sandbox.types import *
from sandbox.capabilities import HostCapabilities
from sandbox.open import open_sandbox
walls = HostCapabilities.probe()
said = []
for accept in ("strong", "userns"):
    try:
        open_sandbox(accept=accept).close()
    except IsolationUnavailable as error:
        said.append(str(error))
verdicts = []
with open_sandbox(accept="landlock") as sandbox:
    for language, source in (("python", "print(1)"), ("cpp", "#include <cstdio>\\nint main() { puts(\\"1\\"); }")):
        report = judge(Program(language, source), StdioSuite((StdioCase("", "1"),)), Limits(), Stop(), sandbox)
        verdicts.append([report.verdict, report.isolation])
print(json.dumps([walls.level, walls.lacks["strong"], said, verdicts]))
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_with_the_capabilities_of_a_default_container_landlock_is_the_best_and_has_to_be_asked_for() -> None:
    if landlock_lacks():
        pytest.skip("; ".join(landlock_lacks()))
    kept = ",".join(f"+{name}" for name in DEFAULT_DOCKER.split(","))
    done = run_outside(DOCKER, "setpriv", "--bounding-set", f"-all,{kept}")
    assert done.returncode == 0, done.stderr
    level, lacks, said, verdicts = json.loads(done.stdout)
    assert level == "landlock"
    assert [lack.split(",")[0] for lack in lacks] == ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]
    assert all("--cap-add SYS_ADMIN" in text and "gives is level 'landlock'" in text for text in said)
    assert len(said) == 2
    assert verdicts == [["passed", "landlock"]] * 2


PLAIN = """
import json
from sandbox.judge import judge
from sandbox.selftest import prove
from sandbox.types import *
from sandbox.capabilities import HostCapabilities
from sandbox.owners import state_directory
from sandbox.sandbox import Sandbox
lacks = HostCapabilities.probe().lacks
with Sandbox(HostCapabilities("none", (), ""), state_directory()) as sandbox:
    prove(sandbox)
    report = judge(Program("python", "print(1)"), StdioSuite((StdioCase("", "1"),)), Limits(), Stop(), sandbox)
uid = sandbox.jail_config.uid
print(json.dumps([uid, report.verdict, lacks["none"], [lack.split(":")[0] for lack in lacks["landlock"]]]))
"""


def test_a_plain_user_can_have_none_and_not_landlock() -> None:
    if unreachable([str(ROOT), *site.getsitepackages()]):
        pytest.skip("another user cannot read this checkout")
    done = run_outside(PLAIN, user=NOBODY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[:3] == [None, "passed", []]
    assert "root" in json.loads(done.stdout)[3]


def test_what_is_not_to_be_had_is_refused_by_name() -> None:
    walls = HostCapabilities("landlock", ("cgroups",), "ask for more", {"strong": ("cgroups",), "landlock": ()})
    for accept in ("strong", "userns"):
        with pytest.raises(IsolationUnavailable, match=r"cgroups.*'landlock'.*ask for more"):
            walls.require(accept)  # type: ignore[arg-type]
    walls.require("landlock")
    walls.require("none")
    nothing = HostCapabilities("none", ("cgroups",), "", {"none": ("a Python that other uids can reach",)})
    with pytest.raises(IsolationUnavailable, match="a Python"):
        nothing.require("none")


def test_no_zygote_outlives_its_sandbox(reachable: None) -> None:
    for level in ("landlock", "none"):
        with made(level) as sandbox:
            assert run(sandbox, "print(1)", "1").passed == 1
            home = str(sandbox.home)
        left = [pid for pid in descendants(os.getpid()) if home in Path(f"/proc/{pid}/cmdline").read_text()]
        assert left == []
        assert not os.path.exists(home)


def test_memory_that_a_census_cannot_see_is_not_to_be_had(low: Sandbox) -> None:
    source = (
        "import os\ntry:\n    os.memfd_create('hoard')\n    print('had')\nexcept PermissionError:\n    print('refused')"
    )
    assert printed(low, source) == ("had" if low.level == "none" else "refused")


# --- test files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grading", ["split", "together"])
def test_test_files_are_run_at_every_level(low: Sandbox, grading: Grading) -> None:
    right, wrong = "def f(x): return x + 1\n", "def f(x): return x\n"
    suites = (
        PytestSuite("import pytest\n\n@pytest.mark.parametrize('x', [1, 2])\ndef test_f(x):\n    assert f(x) > x\n"),
        UnittestSuite(
            "import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(1), 2)\n"
        ),
        AssertSuite(("x = f(1)\nassert x == 2",), entry_point="f"),
    )
    for suite in suites:
        reports = [
            judge(Program("python", one), suite, Limits(), Stop(), low, Options(grading=grading))
            for one in (right, wrong)
        ]
        assert [report.verdict for report in reports] == ["passed", "wrong_answer"], (suite, reports)
